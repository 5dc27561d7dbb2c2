"""A computer that works for hours without anyone at it falls asleep, unless it is asked not to."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator

SYSTEM = sys.platform
_CONTINUOUS, _SYSTEM_REQUIRED = 0x80000000, 0x00000001


@contextlib.contextmanager
def kept_awake() -> Iterator[None]:
    """Ask Windows and macOS to stay awake meanwhile; the screen may go dark.

    Windows keeps to it while the thread lives that asks. It is a courtesy: nothing happens where it cannot be had.
    """
    if SYSTEM == "win32":
        import ctypes

        way = _awake_windows(ctypes.windll.kernel32)
    else:
        way = _awake_macos() if SYSTEM == "darwin" else contextlib.nullcontext()
    with way:
        yield


@contextlib.contextmanager
def _awake_windows(kernel32) -> Iterator[None]:
    kernel32.SetThreadExecutionState(_CONTINUOUS | _SYSTEM_REQUIRED)
    try:
        yield
    finally:
        kernel32.SetThreadExecutionState(_CONTINUOUS)


@contextlib.contextmanager
def _awake_macos(command: tuple[str, ...] = ("/usr/bin/caffeinate", "-i", "-w")) -> Iterator[None]:
    """It ends with this process, should we be killed."""
    silent = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    try:
        helper = subprocess.Popen([*command, str(os.getpid())], **silent)
    except OSError:
        yield
        return
    try:
        yield
    finally:
        helper.terminate()
        helper.wait()
