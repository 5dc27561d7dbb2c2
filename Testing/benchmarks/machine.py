"""What the figures were measured on."""

from __future__ import annotations

import contextlib
import datetime
import os
import platform
import shutil
import subprocess
import threading
from collections.abc import Iterator
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
        *graphics_cards(),
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


def graphics_cards() -> list[str]:
    """Name, memory and driver of each CUDA card, as NVIDIA's own tool tells them."""
    told = [line.split(", ") for line in _nvidia_smi("name,memory.total,driver_version").splitlines()]
    return [f"{name}, {mib} MiB, driver {driver}" for name, mib, driver in told]


@contextlib.contextmanager
def watched_card(index: int, every_s: float = 0.5) -> Iterator[list[float]]:
    """Inside, a list that grows by the share of the latest moments in which a card computed; empty without the tool."""
    import torch

    shares: list[float] = []
    over = threading.Event()
    uuid = f"GPU-{torch.cuda.get_device_properties(index).uuid}" if torch.cuda.is_available() else ""

    def watch() -> None:
        while uuid and not over.wait(every_s):
            shares.extend(busy_shares(_nvidia_smi("utilization.gpu", "--id", uuid)))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield shares
    finally:
        over.set()
        watcher.join()


def busy_shares(told: str) -> list[float]:
    """The percentages of NVIDIA's tool as shares of 1; none for '[N/A]', which divided cards tell."""
    return [int(line) / 100 for line in told.split() if line.isdigit()]


def memory_gib() -> float:
    """All memory of the machine."""
    import psutil

    return psutil.virtual_memory().total / 2**30


def _git(folder: Path, *words: str) -> str:
    return subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=True).stdout.strip()


def _nvidia_smi(what: str, *words: str) -> str:
    command = ["nvidia-smi", f"--query-gpu={what}", "--format=csv,noheader,nounits", *words]
    if shutil.which(command[0]) is None:
        return ""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else ""


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "none"
