"""How much memory there is, whether what is needed fits, and how many cases may be worked on at once."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import OutOfMemoryError

SYSTEM = sys.platform
SHARE = 0.8
"""The part of the free memory that we allow ourselves."""
ACCURACY = 1.5
"""Estimates may be wrong by this factor; work that cannot fit even so is not begun."""
Say = Callable[[str], None]
_CGROUP = Path("/sys/fs/cgroup")
_RECLAIMABLE = ("inactive_file", "active_file", "slab_reclaimable")
"""What a container has in memory only because nothing else wanted the place."""


@dataclass(frozen=True)
class Need:
    """What some work is estimated to need at its peak, in GB."""

    what: str
    """Begins the sentence, e.g. 'This training'."""
    main_gb: float
    gpu_gb: float = 0.0
    advice: str = "close other programs"
    """What to do when it does not fit; ends the sentence."""

    def sentence(self, free_gb: float, free_gpu_gb: float | None = None) -> str:
        """Need and supply, without an end."""
        need, free = f"{_gb(self.main_gb)} of main memory", _gb(free_gb)
        if free_gpu_gb is not None and self.gpu_gb:
            need, free = f"{need} and {_gb(self.gpu_gb)} of graphics memory", f"{free} and {_gb(free_gpu_gb)}"
        return f"{self.what} needs about {need}; {free} are free"


def unsaid(text: str) -> None:
    """A receiver of sentences for callers that do not listen."""


def once(say: Say) -> Say:
    """A listener that hears each sentence a single time."""
    heard: set[str] = set()

    def say_anew(text: str) -> None:
        if text not in heard:
            heard.add(text)
            say(text)

    return say_anew


def announce(need: Need | None, say: Say = unsaid, free_gpu_gb: float | None = None, *, refuse: bool = True) -> None:
    """Say what is needed and what is free; raises OutOfMemoryError when the work cannot fit.

    What might not fit, or cannot but is not to `refuse` because the work makes do with less, is said with what to do.
    Nothing is said about a need that could not be estimated.
    """
    if need is None:
        return
    free = available_gb()
    excess = need.main_gb / max(free, 1e-9)
    if free_gpu_gb is not None:
        excess = max(excess, need.gpu_gb / max(free_gpu_gb, 1e-9))
    sentence = need.sentence(free, free_gpu_gb)
    if excess > ACCURACY and refuse:
        raise OutOfMemoryError(f"{sentence.replace('; ', ', but only ')}: {need.advice}.")
    say(f"{sentence}." if excess <= 1 else f"{sentence}. If it does not fit: {need.advice}.")


def available_gb() -> float:
    """Memory that can be had without swapping, in GB; 8 when the system does not tell."""
    try:
        import psutil
    except ImportError:
        told = _told_by_the_system()
        free = told[0] if told else 8.0
    else:
        free = psutil.virtual_memory().available / 1e9
    return min(free, _container_gb())


def total_gb() -> float:
    """All main memory, in GB; 16 when the system does not tell."""
    try:
        import psutil
    except ImportError:
        told = _told_by_the_system()
        total = told[1] if told else 16.0
    else:
        total = psutil.virtual_memory().total / 1e9
    return min(total, _container_gb(used=False))


def affordable_workers(wanted: int, gb_each: float, what: str, say: Say = unsaid) -> int:
    """How many of the wanted workers fit into memory when each needs `gb_each`; says when they are fewer.

    Raises OutOfMemoryError when not even one can fit.
    """
    free = available_gb()
    if gb_each > free * ACCURACY:
        raise OutOfMemoryError(
            f"{what} needs about {gb_each:.1f} GB of memory, {free:.1f} GB are free; "
            "close other programs or use a machine with more memory."
        )
    affordable = max(1, min(wanted, int(free * SHARE / max(gb_each, 1e-3))))
    if affordable < wanted:
        say(
            f"{what} needs about {_gb(gb_each)} of memory; {affordable} at a time instead of {wanted}, {_gb(free)} are free."
        )
    return affordable


@contextlib.contextmanager
def memory_errors(advice: str) -> Iterator[None]:
    """Turn a lack of main memory into OutOfMemoryError with `advice`."""
    try:
        yield
    except MemoryError as error:
        raise OutOfMemoryError(f"Main memory does not suffice; {advice}.") from error


def release_freed() -> None:
    """Give blocks back that glibc keeps, which earlier work of this process freed, so that they count as free again."""
    if SYSTEM == "linux" and platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def _gb(value: float) -> str:
    return f"{value:.1f} GB" if value < 10 else f"{value:.0f} GB"


def _container_gb(used: bool = True) -> float:
    """What a container may use (and has not used yet), in GB; infinite outside of one."""
    try:
        most = int((_CGROUP / "memory.max").read_text())
        taken = int((_CGROUP / "memory.current").read_text()) if used else 0
        counts = (_CGROUP / "memory.stat").read_text().split()
    except (OSError, ValueError):  # without a limit there is the word 'max'
        return float("inf")
    reclaimable = sum(int(counts[counts.index(name) + 1]) for name in _RECLAIMABLE if name in counts)
    return (most - max(taken - reclaimable, 0)) / 1e9


def _told_by_the_system() -> tuple[float, float] | None:
    """Free and all memory, in GB, without psutil; None when the system does not tell."""
    if SYSTEM == "win32":
        return _told_by_windows(ctypes.windll.kernel32)
    if SYSTEM == "darwin":
        return _told_by_macos()
    names = getattr(os, "sysconf_names", {})
    if "SC_AVPHYS_PAGES" not in names:
        return None
    page_gb = os.sysconf("SC_PAGE_SIZE") / 1e9
    return os.sysconf("SC_AVPHYS_PAGES") * page_gb, os.sysconf("SC_PHYS_PAGES") * page_gb


def _told_by_windows(kernel32) -> tuple[float, float] | None:
    """By GlobalMemoryStatusEx, whose answer is 64 bytes that begin with that number; all bytes are its second value."""
    answer = (ctypes.c_uint64 * 8)()
    ctypes.cast(answer, ctypes.POINTER(ctypes.c_uint32))[0] = ctypes.sizeof(answer)
    if not kernel32.GlobalMemoryStatusEx(ctypes.byref(answer)):
        return None
    return answer[2] / 1e9, answer[1] / 1e9


def _told_by_macos(run=subprocess.run) -> tuple[float, float] | None:
    """What is free or can be taken back counts, as psutil has it."""
    try:
        pages, total = (
            run(words, capture_output=True, text=True, errors="replace", check=False).stdout
            for words in (["/usr/bin/vm_stat"], ["/usr/sbin/sysctl", "-n", "hw.memsize"])
        )
        size = int(re.search(r"page size of (\d+) bytes", pages)[1])
        free = sum(int(re.search(rf"Pages {kind}:\s+(\d+)", pages)[1]) for kind in ("free", "inactive"))
        return free * size / 1e9, int(total) / 1e9
    except (OSError, TypeError, ValueError):  # not found, or not what is expected
        return None
