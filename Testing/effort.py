"""Work that grows with the square of the cases, told from work that grows with them by counting instead of by a clock."""

from __future__ import annotations

import sys
from collections.abc import Callable


class Watched(str):
    """A text that counts how often texts of its kind are compared."""

    comparisons = 0

    def __eq__(self, other):
        Watched.comparisons += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__


class WatchedNumber(int):
    """A number whose comparisons count likewise."""

    def __eq__(self, other):
        Watched.comparisons += 1
        return int.__eq__(self, other)

    __hash__ = int.__hash__


def comparisons(work: Callable[[], object]) -> int:
    """How often watched texts and numbers are compared in some work."""
    before = Watched.comparisons
    work()
    return Watched.comparisons - before


def calls(work: Callable[[], object]) -> int:
    """How many functions are called in some work, those written in C too."""
    found = 0

    def count(_frame, event: str, _argument) -> None:
        nonlocal found
        found += event in ("call", "c_call")

    kept = sys.getprofile()
    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(kept)
    return found


def growth(work_on: Callable[[int], Callable[[], object]], n: int = 100) -> float:
    """How many times the calls twice the cases take: about 2, or about 4 where each case is compared with all."""
    return calls(work_on(2 * n)) / calls(work_on(n))
