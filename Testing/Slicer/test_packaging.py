"""The extension is configured and installed by CMake as Slicer's build does it, and used from where it lands."""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from bench import harness

ROOT = Path(__file__).resolve().parents[2]
TUTORIAL = ROOT / "Resources" / "Tutorial.md"
STAND_IN = ROOT / "Testing" / "cmake_stand_in"
MODULES = Path("lib/Slicer-5.13/qt-scripted-modules")


def run(*command, **options) -> subprocess.CompletedProcess:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=120, **options)
    assert done.returncode == 0, f"{command[0]} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="session")
def cmake() -> str:
    missing = [tool for tool in ("cmake", "make", "c++") if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"packaging is tested with {' and '.join(missing)}, which is not installed")
    return shutil.which("cmake")


@pytest.fixture(scope="session")
def build(cmake, tmp_path_factory) -> Path:
    """The folder in which the extension was configured, tests included."""
    folder = tmp_path_factory.mktemp("build")
    run(cmake, "-S", ROOT, "-B", folder, f"-DSlicer_DIR={STAND_IN}", "-DBUILD_TESTING=ON")
    return folder


@pytest.fixture(scope="session")
def installed(cmake, build, tmp_path_factory) -> Path:
    """The folder of Slicer's modules after an installation."""
    prefix = tmp_path_factory.mktemp("installed")
    run(cmake, "--install", build, "--prefix", prefix)
    return prefix / MODULES


def files_below(folder: Path) -> set[str]:
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.name != "CMakeLists.txt"
    }


def test_every_file_of_the_library_is_packaged_in_its_folder(installed):
    assert files_below(installed / "NNSegmentLib") == files_below(ROOT / "NNSegmentLib")


def test_every_file_of_the_panel_and_the_effect_is_packaged_where_slicer_looks(installed):
    effect = ROOT / "NNSegment" / "SegmentEditorNNSegment"
    panel = {f for f in files_below(ROOT / "NNSegment") if not f.startswith("SegmentEditorNNSegment/")}
    library = {f"NNSegmentLib/{f}" for f in files_below(ROOT / "NNSegmentLib")}

    assert files_below(installed) == panel | files_below(effect) | library


def test_only_modules_lie_loose_in_the_folder_of_modules(installed):
    assert sorted(path.name for path in installed.glob("*.py")) == ["NNSegment.py", "SegmentEditorNNSegment.py"]


def test_the_self_tests_of_both_modules_are_registered(build):
    assert sorted((build / "tests.txt").read_text().splitlines()) == [
        "generic NNSegment",
        "generic SegmentEditorNNSegment",
        "unittest NNSegment.py",
        "unittest SegmentEditorNNSegment.py",
    ]


def test_what_is_installed_works_without_the_source_tree(installed, tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    script = (
        f"import sys; sys.path = [p for p in sys.path if p and p != {str(ROOT)!r}]; sys.path.insert(0, {str(installed)!r}); "
        "sys.meta_path = [f for f in sys.meta_path if 'editable' not in str(f)]; "
        "import NNSegmentLib, NNSegmentLib.arguments, NNSegmentLib.planning.plan, NNSegmentLib.formats as deep; "
        "NNSegmentLib.arguments.build_parser(); print(deep.__file__)"
    )

    done = run(sys.executable, "-c", script, cwd=tmp_path, env=environment)

    assert Path(done.stdout.strip()).is_relative_to(installed)


PROBE = """
import sys
from pathlib import Path
sys.path = [p for p in sys.path if p and Path(p).resolve() != Path({root!r})]
sys.meta_path = [f for f in sys.meta_path if 'editable' not in str(f)]
from bench import harness
harness.start()
folder = Path({folder!r})
if {beside}:
    sys.path.insert(0, str(folder))
before = list(sys.path)
panel = harness.open_module(folder / "NNSegment.py")
import NNSegmentLib
added = [p for p in sys.path if p not in before and Path(p).resolve() != folder.resolve()]
print("FOUND", NNSegmentLib.__file__, len(added), "torch" in sys.modules)
"""


@pytest.mark.parametrize("layout", ["source tree", "installed"])
def test_the_module_finds_its_library_in_both_layouts(layout, request, tmp_path):
    """From the source tree the module adds the folder above its own; where the library is beside it, nothing."""
    if harness.why_not():
        pytest.skip(harness.why_not())
    folder = ROOT / "NNSegment" if layout == "source tree" else request.getfixturevalue("installed")
    environment = dict(os.environ, QT_QPA_PLATFORM="offscreen", PYTHONPATH=str(ROOT / "Testing"))
    script = PROBE.format(root=str(ROOT), folder=str(folder), beside=layout == "installed")

    done = run(sys.executable, "-c", script, cwd=tmp_path, env=environment)

    _, library, added, torch = next(line for line in done.stdout.splitlines() if line.startswith("FOUND")).split()
    expected = ROOT if layout == "source tree" else folder
    assert Path(library) == expected / "NNSegmentLib" / "__init__.py"
    assert int(added) == (1 if layout == "source tree" else 0)
    assert torch == "False"


def test_the_extension_is_described_as_the_index_demands():
    text = (ROOT / "CMakeLists.txt").read_text()
    entry = json.loads((ROOT / "Resources" / "NNSegment.json").read_text())
    described = dict(re.findall(r'set\(EXTENSION_(\w+) "([^"]*)"\)', text))
    addresses = [described["ICONURL"], *described["SCREENSHOTURLS"].split()]

    assert re.search(r"project\((\w+)", text).group(1) == "NNSegment"
    assert entry["category"] == "Segmentation"
    assert [described["DEPENDS"]] == entry["build_dependencies"] == ["PyTorch"]
    assert set(entry) <= {
        "$schema", "build_dependencies", "build_subdirectory", "category", "scm_revision", "scm_url", "tier",
    }  # fmt: skip
    assert entry["scm_url"] == described["HOMEPAGE"] + ".git"
    assert entry["scm_url"].rsplit("/", 1)[1].startswith("Slicer")
    assert all(a.startswith("https://raw.githubusercontent.com/") and a.endswith(".png") for a in addresses)
    assert (ROOT / "LICENSE.txt").is_file()


def test_what_slicer_installs_is_what_pyproject_asks_for():
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (ROOT / "NNSegment" / "Resources" / "requirements.txt").read_text().splitlines()

    asked = {*wanted["dependencies"], *wanted["optional-dependencies"]["train"]}
    bundled = {"numpy", "scipy", "SimpleITK", "torch"}  # with Slicer; PyTorch by its own extension

    named = {line for line in lines if line and not line.startswith("#")}
    assert named == {entry for entry in asked if re.split("[<>=!]", entry)[0] not in bundled}


def test_the_icon_has_128_pixels_and_is_the_same_everywhere():
    icon = (ROOT / "Resources" / "NNSegment.png").read_bytes()
    effect = ROOT / "NNSegment" / "SegmentEditorNNSegment" / "SegmentEditorNNSegmentLib" / "SegmentEditorEffect.png"

    assert struct.unpack(">II", icon[16:24]) == (128, 128)
    assert (ROOT / "NNSegment" / "Resources" / "Icons" / "NNSegment.png").read_bytes() == icon
    assert effect.read_bytes() == icon


def test_the_tutorials_pictures_have_the_names_that_make_screenshots_writes():
    pictures = re.findall(r"!\[[^]]+\]\(([^)]+)\)", TUTORIAL.read_text(encoding="utf-8"))

    assert sorted(pictures) == [
        f"Screenshots/{name}.png" for name in ("apply", "curves", "plan", "results", "segments", "task", "train")
    ]


def test_what_the_tutorial_prints_in_bold_is_written_on_the_panel():
    text = " ".join(TUTORIAL.read_text(encoding="utf-8").split())
    sources = [*(ROOT / "NNSegment").rglob("*.ui"), *(ROOT / "NNSegment" / "NNSegmentUI").glob("*.py")]
    panel = " ".join(path.read_text(encoding="utf-8") for path in sources)

    named = set(re.findall(r"\*\*(.+?)\*\*", text)) - {"bold"}

    assert len(named) > 25
    assert not {words for words in named if f'"{words}"' not in panel and f">{words}<" not in panel}


def test_the_help_of_the_module_leads_to_the_page_of_the_extension():
    """Not to a page of Slicer's own documentation, which has none about extensions."""
    reason = harness.why_not()
    if reason:
        pytest.skip(reason)
    harness.start()
    from bench.modules import load_scripted_module

    module = load_scripted_module(ROOT / "NNSegment" / "NNSegment.py")

    homepage = re.search(r'EXTENSION_HOMEPAGE "(.+?)"', (ROOT / "CMakeLists.txt").read_text())[1]
    assert re.findall(r'href="(.+?)"', module.helpText) == [f"{homepage}#readme"]
