"""The state of a case's files, time and size, and whether they are the same ones in another state."""

from __future__ import annotations

from ..task import Case, Task

FILE_CLOCK_S = 2.0
"""Precision with which some file systems note times."""
_SECOND_NS = 10**9
_CLOCK_STEPS_NS = (100, 1_000, 10_000_000, 1_000_000_000, 2_000_000_000)
"""Steps in which NTFS, network drives, exFAT, HFS+ and FAT note times."""
Stamps = list[list[int]]


def stamps_of(case: Case) -> Stamps:
    """Time of change (ns) and size (bytes) of the case's files; a file that is missing has neither."""
    files = [path for path in (*case.images, case.labels) if path]
    found = [path.stat() if path.is_file() else None for path in files]
    return [[status.st_mtime_ns, status.st_size] if status else [] for status in found]


def younger_cases(task: Task, than_s: float) -> list[str]:
    """The ids of cases with a file that was changed after this time (s since 1970)."""
    latest_ns = (than_s + FILE_CLOCK_S) * _SECOND_NS
    return [case.id for case in task.cases if any(stamp and stamp[0] > latest_ns for stamp in stamps_of(case))]


def are_of_one_state(noted: object, found: Stamps) -> bool:
    """Whether files are those that were noted, also after they moved to a disk that keeps times less precisely."""
    return (
        isinstance(noted, list)
        and len(noted) == len(found)
        and all(was == now or _only_rounded(was, now) for was, now in zip(noted, found, strict=True))
    )


def _only_rounded(was: object, now: list[int]) -> bool:
    """A file of the same size whose time lost digits; one that was written again within seconds has all of them."""
    if not isinstance(was, list) or [len(was), *was[1:]] != [len(now), *now[1:]] or not isinstance(was[0], int):
        return False
    fine = was[0] % _SECOND_NS  # times out of an archive have whole seconds on every disk, and tell nothing by it
    steps = [step for step in _CLOCK_STEPS_NS if step < _SECOND_NS or fine]
    return any(now[0] % step == 0 and abs(now[0] - was[0]) < step for step in steps)
