"""What works on this machine, what does not, and the command that mends it."""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import StorageError
from .folders import Workspace
from .machine.memory import available_gb
from .packages import OLDEST_TORCH, PACKAGES, release_of
from .records import allows_long_paths, written_whole

PYTHON, DEVICE = "Python", "device"
_LONGEST_WORKSPACE = 80
"""Letters, beyond which an ensemble's post-processed cases may not find room in the 259 of a path on Windows."""
SLOW_TORCH, SOUND_TORCH = (2, 9), (2, 10)


@dataclass(frozen=True)
class Check:
    """One thing looked at."""

    name: str
    ok: bool
    found: str
    advice: str = ""
    """What mends it; empty when all is well."""

    def __str__(self) -> str:
        line = f"{'ok  ' if self.ok else 'MISS'}  {self.name}: {self.found}"
        return line + (f"\n      → {self.advice}" if self.advice else "")


def examine(workspace: Path | None = None) -> list[Check]:
    """All checks, the quick ones first; torch is imported only to ask it for devices."""
    return [
        _python(),
        *[_package(name, use) for name, use in PACKAGES.items()],
        *_devices(),
        _memory(),
        *_roots(workspace),
    ]


def lacking(checks: Sequence[Check]) -> list[Check]:
    """What is wrong with the Python itself; memory and folders are not its fault."""
    return [check for check in checks if not check.ok and check.name in (PYTHON, DEVICE, *PACKAGES)]


def _python() -> Check:
    ok = sys.version_info >= (3, 11)
    return Check(
        PYTHON, ok, f"{platform.python_version()} on {platform.platform()}", "" if ok else "Use Python 3.11 or newer."
    )


def _package(name: str, use: str) -> Check:
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return Check(name, False, f"not installed (needed for {use})", f"pip install {name.lower()}")
    return torch_check(version) if name == "torch" else Check(name, True, version)


def torch_check(version: str) -> Check:
    """Whether this version of PyTorch is one that the work is done with; torch itself is not asked."""
    release = release_of(version)
    if release == SLOW_TORCH:
        return Check(
            "torch", False, f"{version} computes 3D convolutions several times slower", 'pip install "torch!=2.9.*"'
        )
    if release < OLDEST_TORCH:
        return Check("torch", False, f"{version} is older than 2.6", 'pip install "torch>=2.6"')
    if release < SOUND_TORCH:
        weakness = (
            "before 2.10 a hostile file of weights may take over the program (CVE-2026-24747); load none of strangers"
        )
        return Check("torch", True, f"{version}; {weakness}")
    return Check("torch", True, version)


def _devices() -> list[Check]:
    try:
        from .engine.devices import describe_devices
    except (ImportError, OSError) as error:  # OSError: Windows, about a library that torch loads
        if isinstance(error, ModuleNotFoundError) and error.name == "torch":
            return []
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        return [Check(DEVICE, False, f"PyTorch cannot be loaded ({reason})", "pip install --force-reinstall torch")]
    return [Check(DEVICE, True, text) for text in describe_devices()]


def _memory() -> Check:
    free = available_gb()
    ok = free >= 4
    return Check("memory", ok, f"{free:.1f} GB free", "" if ok else "Close other programs; 4 GB should be free.")


def _roots(workspace: Path | None) -> list[Check]:
    place = Workspace.find(workspace)
    roots = {name: getattr(place, name) for name in ("raw", "preprocessed", "results")}
    return [*_path_lengths(roots.values()), *(_root(name, folder) for name, folder in roots.items())]


def _path_lengths(roots: Iterable[Path]) -> list[Check]:
    """A warning on Windows where names below the workspace get longer than it allows."""
    longest = max((str(root.parent) for root in roots), key=len)
    if len(longest) <= _LONGEST_WORKSPACE or allows_long_paths():
        return []
    return [
        Check(
            "workspace path", False, f"{longest} has {len(longest)} letters, and Windows allows 259 for a whole path",
            f"Choose a workspace nearer to the drive's root with --workspace, of at most {_LONGEST_WORKSPACE} letters.",
        )
    ]  # fmt: skip


def _root(name: str, folder: Path) -> Check:
    existing = next(p for p in (folder, *folder.parents) if p.exists())
    free = shutil.disk_usage(existing).free / 1e9
    try:
        with written_whole(existing / ".nnsegment-test"):
            pass
        (existing / ".nnsegment-test").unlink()
    except StorageError as error:
        return Check(
            f"{name} folder", False, f"{folder} cannot be written ({error})", "Choose another with --workspace."
        )
    ok = free > 5
    return Check(f"{name} folder", ok, f"{folder}, {free:.0f} GB free", "" if ok else "Free some disk space.")
