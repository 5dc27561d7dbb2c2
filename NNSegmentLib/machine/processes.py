"""Processes of this machine: which one it is, whether it still runs, how to start one that outlives us, how to end it.

A process number is given again to another process after a while, so a process is known by its number and the moment
it started. The moment is an opaque text that only equals itself; each system tells it in its own way.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .identity import computer_mark, host_name, is_this_computer

WINDOWS = sys.platform == "win32"
_CREATE_NEW_PROCESS_GROUP = 0x00000200
_CREATE_NO_WINDOW = 0x08000000
_PROCESS_QUERY_LIMITED_INFORMATION = 0x1000
_STILL_ACTIVE = 259
_ERROR_ACCESS_DENIED = 5
_EPOCH_S = 11644473600
"""From 1601, where Windows begins to count, to 1970."""
UNTOLD = "untold"
"""When a process started that another user of Windows runs."""


@dataclass(frozen=True)
class ProcessIdentity:
    """One process, never mistaken for a later one with the same number."""

    pid: int
    started: str
    """When it started, as its system writes it."""
    host: str
    """The computer's name, for people."""
    computer: str = ""
    """Its mark; empty in files of earlier versions, and where there is none."""

    @classmethod
    def of(cls, pid: int) -> ProcessIdentity | None:
        """The process that has this number now; None when there is none."""
        started = started_at(pid)
        return cls(pid, started, host_name(), computer_mark()) if started else None

    @classmethod
    def own(cls) -> ProcessIdentity:
        """This process."""
        return cls(os.getpid(), started_at(os.getpid()) or "", host_name(), computer_mark())

    @property
    def is_here(self) -> bool:
        """Whether it belongs to this machine, so that we can look."""
        return is_this_computer(self.host, self.computer)

    def is_running(self) -> bool:
        """Whether it still runs, as far as can be seen; False for a process of another machine, which we cannot see."""
        if not self.is_here:
            return False
        now = started_at(self.pid)
        return now == self.started or (now == UNTOLD and _since_the_boot(self.started))

    def is_known_to_run(self) -> bool:
        """Whether it certainly runs: what Windows hides may also be another user's process with the same number."""
        return self.is_here and started_at(self.pid) == self.started


def started_at(pid: int) -> str | None:
    """When process `pid` started; None when it does not run (a zombie does not), UNTOLD when Windows hides it."""
    if sys.platform == "linux":
        return _started_linux(pid, Path("/proc"))
    if WINDOWS:
        import ctypes

        return _started_windows(pid, _kernel32(), ctypes.get_last_error)
    return _started_ps(pid)


def _started_linux(pid: int, proc: Path) -> str | None:
    """Ticks since the boot, with the boot's own name: a corrected clock changes neither."""
    try:
        state, *fields = (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()
        boot = (proc / "sys/kernel/random/boot_id").read_text().strip()
    except (OSError, ValueError):
        return None
    return None if state in "ZX" else f"{boot}:{fields[18]}"


def _started_ps(pid: int) -> str | None:
    plain = {**os.environ, "LC_ALL": "C", "TZ": "UTC"}
    told = subprocess.run(
        ["ps", "-o", "state=,lstart=", "-p", str(pid)], env=plain, capture_output=True, text=True, check=False
    ).stdout.strip()
    state, _, started = told.partition(" ")
    return started.strip() if started and not state.startswith("Z") else None


@functools.cache
def _kernel32():
    import ctypes

    return ctypes.WinDLL("kernel32", use_last_error=True)


def _started_windows(pid: int, kernel32, last_error) -> str | None:
    """The creation time in units of 100 ns."""
    import ctypes

    kernel32.OpenProcess.restype = ctypes.c_void_p
    handle = ctypes.c_void_p(kernel32.OpenProcess(_PROCESS_QUERY_LIMITED_INFORMATION, False, pid))
    if not handle:
        return UNTOLD if last_error() == _ERROR_ACCESS_DENIED else None
    times, code = (ctypes.c_uint64 * 4)(), ctypes.c_uint32()
    places = [ctypes.byref(times, 8 * n) for n in range(4)]
    try:
        known = kernel32.GetProcessTimes(handle, *places) and kernel32.GetExitCodeProcess(handle, ctypes.byref(code))
    finally:
        kernel32.CloseHandle(handle)
    return str(times[0]) if known and code.value == _STILL_ACTIVE else None


def _since_the_boot(started: str) -> bool:
    """Whether a process of Windows started after the computer did: those from before have all ended."""
    booted = time.time() - time.monotonic()
    return started.isdigit() and int(started) / 1e7 - _EPOCH_S > booted


def variable_of(pid: int, name: str) -> str | None:
    """A variable that a process was started with, empty when it has none; None where the system does not tell."""
    if sys.platform == "linux":
        return _variable_linux(pid, name, Path("/proc"))
    if WINDOWS:  # tells the variables as the process has changed them
        return None
    found = _told_by_psutil(pid, "environ")
    return found.get(name, "") if found else None


def words_of(pid: int) -> Sequence[str] | None:
    """The command line of a process; None where it cannot be told, as without psutil."""
    return _told_by_psutil(pid, "cmdline") or None


def _variable_linux(pid: int, name: str, proc: Path) -> str | None:
    try:
        words = (proc / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return None
    return next((os.fsdecode(word[len(name) + 1 :]) for word in words if word.startswith(f"{name}=".encode())), "")


def _told_by_psutil(pid: int, what: str):
    try:
        import psutil
    except ImportError:
        return None
    try:
        return getattr(psutil.Process(pid), what)()
    except psutil.Error:
        return None


def start_detached(
    command: Sequence[str], environment: Mapping[str, str], cwd: Path, log: Path
) -> ProcessIdentity | None:
    """Start a process that outlives this one and writes into `log`; None when it has ended already.

    A file, not a pipe: a process dies of a pipe whose reader is gone. Raises OSError when it cannot be started.
    """
    with log.open("ab") as output:
        process = subprocess.Popen(
            list(command), env=dict(environment), cwd=cwd, stdin=subprocess.DEVNULL, stdout=output,
            stderr=subprocess.STDOUT, close_fds=True, **detached(WINDOWS),
        )  # fmt: skip
    threading.Thread(target=process.wait, daemon=True).start()  # a child nobody waits for stays as a zombie
    return ProcessIdentity.of(process.pid)


def detached(windows: bool) -> dict[str, object]:
    """What makes a process independent of its parent's end and of its Ctrl-C.

    On Windows a hidden console instead of none (DETACHED_PROCESS): the processes it starts in turn would otherwise
    each open a console window of their own.
    """
    if windows:
        return {"creationflags": _CREATE_NEW_PROCESS_GROUP | _CREATE_NO_WINDOW}
    return {"start_new_session": True}


def end_tree(process: ProcessIdentity) -> None:
    """End a process and all that it started, at once; nothing happens when it is gone already."""
    if not process.is_known_to_run():
        return
    offspring = _offspring(process.pid)
    if WINDOWS:
        _end_windows(process.pid)
    else:
        _end_posix(process.pid)
    for child in offspring:
        _end_one(child)


def _end_windows(pid: int, run=subprocess.run) -> None:
    run(["taskkill", "/F", "/T", "/PID", str(pid)], capture_output=True, check=False, creationflags=_CREATE_NO_WINDOW)


def _end_posix(pid: int) -> None:
    """End the whole group when it is one that we started, which leads its own session."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        group = os.getpgid(pid)
        if group == os.getsid(pid) and group != os.getpgrp():
            os.killpg(group, signal.SIGKILL)
        else:
            os.kill(pid, signal.SIGKILL)


def _offspring(pid: int) -> list[ProcessIdentity]:
    """All processes below `pid`, also those that left its group; none without psutil."""
    try:
        import psutil
    except ImportError:
        return []
    try:
        children = psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []
    return [found for child in children if (found := ProcessIdentity.of(child.pid))]


def _end_one(process: ProcessIdentity) -> None:
    if process.is_known_to_run():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(process.pid, signal.SIGTERM if WINDOWS else signal.SIGKILL)
