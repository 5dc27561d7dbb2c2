"""Measuring: a command or a function in a process of its own, its wall-clock time and its peak memory."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

TESTING = Path(__file__).resolve().parents[1]
ROOT = TESTING.parent
_ANSWER = "answer: "


class BenchmarkError(Exception):
    """A measured process failed."""


@dataclass(frozen=True)
class Measured:
    """One process: seconds, peak memory of its largest process in GiB (NaN where the system does not tell)."""

    seconds: float
    peak_gib: float
    answer: Mapping[str, float] = field(default_factory=dict)
    """What a function returned."""


def command(words: Sequence[object], environment: Mapping[str, str] | None = None) -> Measured:
    """Run a command to its end; raises BenchmarkError with the end of its output when it fails."""
    return _run([str(word) for word in words], dict(environment or {}))[0]


def nnsegment(*arguments: object) -> Measured:
    """Run our command line, as a user does."""
    script = Path(sys.executable).with_name("nnsegment")
    start = [script] if script.is_file() else [sys.executable, "-m", "NNSegmentLib"]
    return command([*start, *arguments])


def function(
    where: str, *arguments: object, python: str = sys.executable, environment: Mapping[str, str] | None = None
) -> Measured:
    """Run 'module:function' of this package in a process of its own; its arguments and its answer travel as JSON.

    An answer with 'seconds' tells the time of the step itself, without the start of the process.
    """
    code = "import sys; from benchmarks.measure import reply; reply(*sys.argv[1:])"
    words = [python, "-c", code, *where.split(":"), json.dumps([_plain(a) for a in arguments])]
    measured, output = _run(words, dict(environment or {}))
    found = [line.removeprefix(_ANSWER) for line in output.splitlines() if line.startswith(_ANSWER)]
    answer = json.loads(found[-1])
    return Measured(answer.get("seconds", measured.seconds), measured.peak_gib, answer)


def reply(module: str, name: str, arguments: str) -> None:
    """The other end of `function`."""
    answer = getattr(importlib.import_module(f"benchmarks.{module}"), name)(*json.loads(arguments))
    print(_ANSWER + json.dumps(answer or {}), flush=True)


def median(runs: int, measure: Callable[[], Measured]) -> Measured:
    """The run of median time, with the highest peak of all."""
    found = sorted((measure() for _ in range(runs)), key=lambda m: m.seconds)
    middle = found[(runs - 1) // 2]
    return Measured(middle.seconds, max(m.peak_gib for m in found), middle.answer)


def median_seconds(runs: int, work: Callable[[], object]) -> float:
    """Inside a process: the median time of a call."""
    return statistics.median(seconds_of(work) for _ in range(runs))


def seconds_of(work: Callable[[], object]) -> float:
    """Inside a process: the time of a call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _plain(argument: object) -> object:
    return str(argument) if isinstance(argument, Path) else argument


def _run(words: list[str], environment: dict[str, str]) -> tuple[Measured, str]:
    search = os.pathsep.join([str(TESTING), str(ROOT), os.environ.get("PYTHONPATH", "")])
    around = os.environ | {
        "PYTHONPATH": search,
        "PYTHONDONTWRITEBYTECODE": "",
    }  # compiled once, as installed packages are
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
        started = time.perf_counter()
        process = subprocess.Popen(
            words,
            env=around | environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=TESTING,
        )
        code, peak_gib = _wait(process)
        seconds = time.perf_counter() - started
        output.seek(0)
        text = output.read()
    if code:
        raise BenchmarkError(f"{' '.join(words)[:200]} ended with code {code}:\n{text[-2000:]}")
    return Measured(seconds, peak_gib), text


def _wait(process: subprocess.Popen) -> tuple[int, float]:
    """Exit code and peak memory of the process or, if larger, of the largest one it started."""
    if not hasattr(os, "wait4"):
        return process.wait(), float("nan")
    try:
        _, status, usage = os.wait4(process.pid, 0)
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        raise
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, usage.ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)
