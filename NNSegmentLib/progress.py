"""How long work tells how far it is: a function that is called with steps done, steps in all, and a text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from .given import whole_number

T = TypeVar("T")
R = TypeVar("R")

Progress = Callable[[float, int, str], None]
"""`progress(done, total, what)`: called once with done == 0 before the work and once after each step.

Within a long step it may be called with parts of it: 2.25 of 10 cases.
"""


def silent(done: float, total: int, what: str) -> None:
    """A progress receiver for callers that do not watch."""


def part_of(progress: Progress, part: str) -> Progress:
    """A receiver for one part of a larger work, which is named behind the text."""
    return lambda done, total, what: progress(done, total, f"{what} ({part})")


def within(progress: Progress, step: int, total: int, text: Callable[[str], str], rounds: int = 1) -> Progress:
    """A receiver for the work inside one of `total` steps, which goes `rounds` times from 0 to its end.

    `text` makes of '3 of 24 tiles' what is shown.
    """
    begun = 0

    def told(done: float, steps: int, what: str) -> None:
        nonlocal begun
        begun += done == 0
        share = min((max(begun - 1, 0) + done / max(steps, 1)) / rounds, 1.0)
        progress(round(step + share, 2), total, text(f"{done:g} of {steps} {what}"))

    return told


def stepped(items: Sequence[T], progress: Progress, what: str) -> Iterator[T]:
    """The items one by one, reporting after each."""
    progress(0, len(items), what)
    for done, item in enumerate(items, start=1):
        yield item
        progress(done, len(items), what)


def in_parallel(
    work: Callable[[T], R], items: Iterable[T], workers: int, progress: Progress = silent, what: str = ""
) -> list[R]:
    """`work(item)` for every item in `workers` threads, results in the order of the items.

    Threads, not processes: reading, decompressing and matrix products release the interpreter lock, nothing has to
    be copied between processes, and a failing item raises its own error here instead of a dead worker.
    """
    items, workers = list(items), whole_number("workers", workers, 0)
    progress(0, len(items), what)
    if workers <= 1 or len(items) <= 1:
        return [_reported(work(item), n, len(items), progress, what) for n, item in enumerate(items, 1)]
    with ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(work, item) for item in items]
        try:
            return [_reported(f.result(), n, len(items), progress, what) for n, f in enumerate(futures, 1)]
        finally:
            pool.shutdown(cancel_futures=True)  # after an error what has not begun need not


def _reported(result: R, done: int, total: int, progress: Progress, what: str) -> R:
    progress(done, total, what)
    return result
