"""Ctrl-C, a termination request and a job's STOP mean the same: end soon, and leave valid files."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

_CLOSED = tuple(getattr(signal, name) for name in ("SIGHUP", "SIGBREAK") if hasattr(signal, name))
"""The terminal was closed; on Windows also Ctrl-Break."""
_HANGUP = getattr(signal, "SIGHUP", None)
TERMINATIONS = (signal.SIGTERM, *_CLOSED)
"""Requests to end that are not Ctrl-C."""
AT_THE_TERMINAL = (signal.SIGINT, *_CLOSED)
"""What a terminal sends to all processes in it."""


@contextlib.contextmanager
def stopping_cleanly(stop_file: Path) -> Iterator[None]:
    """Turn the first Ctrl-C (or termination request) into `stop_file`; the second one interrupts at once.

    Outside of the main thread, where Python handles no signals, nothing changes.
    """

    def request(number: int, frame: object) -> None:
        if stop_file.exists():
            if number == _HANGUP:  # the system says it, and the shell once more
                return
            raise KeyboardInterrupt
        stop_file.parent.mkdir(parents=True, exist_ok=True)
        stop_file.touch()

    with handling(request):
        yield


@contextlib.contextmanager
def interrupted_by_terminations() -> Iterator[None]:
    """Inside, requests to end interrupt as Ctrl-C does, which is the shell's to give or to keep away.

    Only the first hang-up does: what is tidied up after it is not interrupted by the shell's.
    """
    heard = []

    def interrupt(number: int, frame: object) -> None:
        if number == _HANGUP and heard:
            return
        heard.append(number)
        raise KeyboardInterrupt

    with handling(interrupt, *TERMINATIONS):
        yield


@contextlib.contextmanager
def handling(handler, *numbers: int) -> Iterator[None]:
    """Let `handler` answer these signals, or Ctrl-C and termination requests; the main thread only.

    What `nohup` ignores stays ignored: the work is to outlive the terminal.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = numbers or (signal.SIGINT, *TERMINATIONS)
    numbers = [n for n in numbers if n not in _CLOSED or signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def interrupt_main_thread() -> None:
    """What Ctrl-C does, without a keyboard; a real signal where there are any, since it also ends a wait."""
    if sys.platform == "win32":
        import _thread

        _thread.interrupt_main()
    else:
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
