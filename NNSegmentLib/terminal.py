"""What a person sees while a verb works: a bar with the time left on a terminal, plain lines when piped; and JSON."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from .escapes import printable

if TYPE_CHECKING:
    from .watched_run import WatchedRun

STOPPED = 130
"""The exit code of work that was stopped on request."""
QUIET_S = 2.0
"""Work shorter than this shows nothing."""
LINE_EVERY_S = 10.0
"""Piped output gets a line at most this often."""
LOOK_EVERY_S = 1.0
"""A training run is asked for news at most this often."""
_BAR = "{l_bar}{bar}| {n:g}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}]"
"""tqdm's own, but that parts of a step are shown as 2.25."""


@dataclass(frozen=True)
class Outcome:
    """How a command ended: its exit code, its result, and the sentence said when it did not succeed."""

    code: int
    result: object = None
    sentence: str = ""


class Unread:
    """A stream whose reader may be gone (`| head`), or that was closed: work does not end for want of a reader."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)

    def isatty(self) -> bool:
        return self._stream is not None and self._stream.isatty()

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            if self._stream is not None:
                self._stream.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            if self._stream is not None:
                self._stream.flush()


class Terminal:
    """A progress receiver; `terminal(done, total, what)` draws, `terminal.close()` ends the line."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = Unread(stream or sys.stderr)
        # asked once: the system takes its time to answer
        self._has_bar = self._stream.isatty() and importlib.util.find_spec("tqdm") is not None
        self._bar = None
        self._total, self._done, self._first = -1, 0.0, 0.0
        self._started = self._last_line = self._last_look = time.monotonic()
        self._run: WatchedRun | None = None

    def __call__(self, done: float, total: int, what: str) -> None:
        if time.monotonic() - self._last_look >= LOOK_EVERY_S:
            self._tell_news()
        what = printable(what)
        if total != self._total or done < self._done:
            self._begin(done, total)
        self._done = done
        if time.monotonic() - self._started < QUIET_S and self._bar is None:
            return
        if self._has_bar:
            self._draw(done, total, what)
        elif done == total or time.monotonic() - self._last_line >= LINE_EVERY_S:
            self._line(done, total, what)

    def say(self, text: str) -> None:
        """A line of text, above the bar if there is one."""
        text = printable(text)
        if self._bar is not None:
            self._bar.write(text, file=self._stream)
        else:
            self._stream.write(text + "\n")
            self._stream.flush()

    def watch(self, events: Path) -> None:
        """Say what a training run that records into `events` has to say from now on."""
        from .watched_run import WatchedRun

        self._tell_news()
        self._run = WatchedRun(events, time.time())

    def close(self) -> None:
        """End the bar's line."""
        self._tell_news()
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _tell_news(self) -> None:
        self._last_look = time.monotonic()
        for text in self._run.new_messages() if self._run else ():
            self.say(text)

    def _begin(self, done: float, total: int) -> None:
        """New work, or work taken up again; a text that changes while the total stays tells more about the same."""
        self.close()
        self._total, self._first = total, done
        self._started = self._last_line = time.monotonic()

    def _draw(self, done: float, total: int, what: str) -> None:
        if self._bar is None:
            from tqdm import tqdm

            self._bar = tqdm(
                total=total, desc=what, initial=done, file=self._stream, leave=True, mininterval=0.2, bar_format=_BAR
            )
            self._bar.start_t -= time.monotonic() - self._started
        self._bar.set_description(what, refresh=False)
        self._bar.update(done - self._bar.n)
        if done >= total:
            self.close()

    def _line(self, done: float, total: int, what: str) -> None:
        passed = time.monotonic() - self._started
        new = done - self._first
        left = f", about {duration(passed / new * (total - done))} left" if new > 0 and done < total else ""
        self._stream.write(f"{what}: {done:g} of {total}{left}\n")
        self._stream.flush()
        self._last_line = time.monotonic()


def replace_unknown_characters() -> None:
    """Redirected output on Windows is in an encoding without arrows; better a question mark than an end."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def forget_unread_output() -> None:
    """Python would complain at its end about what nobody read."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def json_text(result: object) -> str:
    """One object, in JSON's own words: numbers that are none (the Dice of an absent label) become null."""
    from .records import to_json

    value = _without_nan(to_json(result))
    return json.dumps(value if isinstance(value, dict) else {"result": value}, indent=1, allow_nan=False)


def _without_nan(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def duration(seconds: float) -> str:
    """A time span as people write it: '45 s', '12 min', '3 h 20 min', '2 d 4 h'."""
    seconds = int(round(seconds))
    if seconds < 90:
        return f"{seconds} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, rest = divmod(minutes, 60)
    return f"{hours} h {rest} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def parse_duration(text: str) -> float:
    """Seconds of '45s', '30m', '10 min', '2 hours', '1h30m'; raises ValueError, also for a number without a unit."""
    import re

    part = r"(\d+(?:\.\d+)?)\s*(d|days?|h|hours?|m|mins?|minutes?|s|secs?|seconds?)(?![a-z])\s*"
    written = text.strip().lower()
    if not re.fullmatch(f"(?:{part})+", written):
        raise ValueError(f"a time is written with its unit, like 30s, 30m or 2h, found {text!r}")
    scale = {"d": 86400, "h": 3600, "m": 60, "s": 1}
    return sum(float(number) * scale[unit[0]] for number, unit in re.findall(part, written))


def table(rows: list[list[str]], header: list[str]) -> str:
    """Rows as aligned columns under a header."""
    widths = [max(len(str(row[i])) for row in [header, *rows]) for i in range(len(header))]
    lines = [
        "  ".join(str(cell).ljust(width) for cell, width in zip(row, widths, strict=True)) for row in [header, *rows]
    ]
    return "\n".join(
        [lines[0].rstrip(), "  ".join("-" * width for width in widths), *[line.rstrip() for line in lines[1:]]]
    )
