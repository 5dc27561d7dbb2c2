"""The house: imports point down, torch stays in the engine, Slicer in its rooms, and importing costs nothing."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

LIBRARY = Path(__file__).resolve().parents[2] / "NNSegmentLib"
FILES = sorted(LIBRARY.rglob("*.py"))


def imported_modules(path: Path) -> set[str]:
    """Top-level names of everything a file imports, anywhere in it."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add((node.module or "").split(".")[0])
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(LIBRARY)))
def test_torch_is_imported_only_in_the_engine(path):
    if path.parent.name != "engine":
        assert "torch" not in imported_modules(path)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(LIBRARY)))
def test_slicer_is_imported_only_in_the_scene_bridge(path):
    if path.name != "scene.py":
        assert not imported_modules(path) & {"slicer", "vtk", "qt", "ctk"}


def file_scope_imports(path: Path) -> set[str]:
    """Modules of ours that a file imports at file scope, as paths relative to the library."""
    package = path.parent.relative_to(LIBRARY).parts
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            target = (*base, *(node.module or "").split(".")) if node.module else base
            candidates = [LIBRARY.joinpath(*target).with_suffix(".py")] if node.module else []
            candidates += [LIBRARY.joinpath(*target, alias.name).with_suffix(".py") for alias in node.names]
            found |= {str(c.relative_to(LIBRARY)) for c in candidates if c.is_file()}
    return found


def test_no_two_files_import_each_other_in_a_circle():
    graph = {str(p.relative_to(LIBRARY)): file_scope_imports(p) for p in FILES}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail, name))
        if name not in done:
            for target in graph[name]:
                visit(target, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("module", ["NNSegmentLib", "NNSegmentLib.pipeline", "NNSegmentLib.cli"])
def test_importing_loads_no_torch(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_help_needs_neither_numpy_nor_torch():
    code = (
        "import sys; from NNSegmentLib.arguments import build_parser; import NNSegmentLib.cli; build_parser().format_help();"
        "sys.exit(bool({'numpy', 'torch', 'SimpleITK', 'scipy'} & set(sys.modules)))"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
