"""What the figures were measured on."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def description() -> str:
    """One line: date, commit, processor, memory, system, versions, and how busy the machine was."""
    parts = [
        f"{datetime.datetime.now():%Y-%m-%d %H:%M}",
        f"commit {commit()}",
        f"{cores()} cores of {processor()}",
        f"{memory_gib():.0f} GiB",
        f"{platform.system()} {platform.release()}",
        f"Python {platform.python_version()}",
        f"torch {_version('torch')}",
    ]
    return ", ".join([*parts, f"load {os.getloadavg()[0]:.1f}"] if hasattr(os, "getloadavg") else parts)


def commit(folder: Path = ROOT) -> str:
    """The short name of the commit, with '+' when files differ from it; '?' without git."""
    try:
        name = _git(folder, "rev-parse", "--short", "HEAD")
        return name + ("+" if _git(folder, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "?"


def processor() -> str:
    """The processor's name as the system tells it."""
    if platform.system() == "Darwin":
        told = subprocess.run(["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True, check=False)
        return told.stdout.strip() or platform.processor()
    told = Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_gib() -> float:
    """All memory of the machine."""
    import psutil

    return psutil.virtual_memory().total / 2**30


def _git(folder: Path, *words: str) -> str:
    return subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=True).stdout.strip()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "none"
