"""Put the mended files of a task in place, all of them or none, whatever happens meanwhile.

They are gathered in a folder `.mending-*` first, so that a full disk shows while the task is as it was; then follow
renames only. A record of these lies in the folder before the first of them and goes after the last: renames that failed
are undone with it, and those that a killed process had begun are finished by the next one.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..cases import CASES_FILE
from ..copying import copy_file
from ..errors import StorageError, TaskError
from ..folders import LABELS_CSV
from ..records import from_json, move, new_folder, read_json, remove, write_json

LABELS, ORIGINALS, NEW = "labels", "originals", "new"
"""In the folder of a mending: the label files, what the task's folder of originals begins with, the descriptions."""
IN_PLACE, BESIDE = "labelsTr", "labels_mended"
"""What mended labels become: the task's folder of labels, or one of their own where dataset.json lists all files."""
_PREFIX = ".mending-"
_OLD = "old"
_RECORD = "renames.json"
_DESCRIPTIONS = ("dataset.json", LABELS_CSV, CASES_FILE)


@dataclass(frozen=True)
class Renames:
    """Where the contents of a mending's folder belong in the task's folder."""

    originals: str
    """Name of the folder that keeps what is replaced."""
    labels: str
    """Name of the folder that the label files become; empty when they stay as they are."""
    descriptions: tuple[str, ...]
    """dataset.json, labels.csv and cases.json, as far as they change."""


@contextlib.contextmanager
def gathering(folder: Path) -> Iterator[Path]:
    """The folder of a mending to fill, removed at the end; raises StorageError when it cannot be written to."""
    try:
        staging = new_folder(folder, _PREFIX)
    except OSError as error:
        raise _cannot_mend(folder, error) from error
    try:
        for name in (ORIGINALS, NEW, _OLD):
            (staging / name).mkdir()
        yield staging
    except OSError as error:
        raise _cannot_mend(folder, error) from error
    finally:
        if not (staging / _RECORD).exists():
            shutil.rmtree(staging, ignore_errors=True)


def install(staging: Path, labels: str) -> None:
    """Put what was gathered in place; `labels` names the folder that the label files become.

    Raises StorageError when that fails, OSError; the task is as it was then.
    """
    folder = staging.parent
    descriptions = tuple(name for name in _DESCRIPTIONS if (staging / NEW / name).is_file())
    for name in descriptions:
        if (folder / name).is_file():
            copy_file(folder / name, staging / _OLD / name)
    renames = Renames(free_name(folder, ORIGINALS), labels if (staging / LABELS).is_dir() else "", descriptions)
    write_json(staging / _RECORD, renames)
    try:
        _put_in_place(staging, renames)
    finally:
        if (staging / _RECORD).exists():
            _put_back(staging, renames)


def interrupted(folder: Path) -> list[Path]:
    """The mendings that were killed between the first rename and the last."""
    recorded = (path.parent for path in folder.glob(f"{_PREFIX}*/{_RECORD}"))
    return sorted(staging for staging in recorded if not (staging / ORIGINALS).exists())


def finish_interrupted(folder: Path) -> bool:
    """Finish what a killed process had put in place only half, and remove what it had merely gathered.

    Call it only while no other process mends the task. Returns whether there was something to finish; raises
    StorageError, and TaskError for a record that is damaged or not written by a mending.
    """
    half_done = [(staging, _recorded(staging)) for staging in interrupted(folder)]
    try:
        for staging, renames in half_done:
            _put_in_place(staging, renames)
    except OSError as error:
        raise _unfinished(folder, error) from error
    for staging in folder.glob(f"{_PREFIX}*"):
        shutil.rmtree(staging, ignore_errors=True)
    return bool(half_done)


def _recorded(staging: Path) -> Renames:
    """The renames that were begun; raises TaskError for others than a mending's, in a task that came from somebody."""
    renames = from_json(Renames, read_json(staging / _RECORD))
    is_ours = (
        _is_free_name(ORIGINALS, renames.originals)
        and (renames.labels in ("", IN_PLACE) or _is_free_name(BESIDE, renames.labels))
        and set(renames.descriptions) <= set(_DESCRIPTIONS)
    )
    passed = (staging, staging / NEW, staging.parent / renames.originals)
    if not is_ours or any(path.is_symlink() for path in passed):
        raise TaskError(
            f"{staging / _RECORD} should name files of a mending, found others or links, so it was not followed; delete "
            f"{staging}, which did not come about here."
        )
    return renames


def _is_free_name(name: str, candidate: str) -> bool:
    """Whether `free_name` gives such names."""
    return re.fullmatch(rf"{name}(_[1-9]\d{{0,5}})?", candidate) is not None


def free_name(parent: Path, name: str) -> str:
    """A name that nothing in the folder has: `originals`, `originals_2`, …"""
    candidates = (name if n == 1 else f"{name}_{n}" for n in range(1, 10**6))
    return next(candidate for candidate in candidates if not (parent / candidate).exists())


def _put_in_place(staging: Path, renames: Renames) -> None:
    """Do those renames that are still to be done; raises OSError."""
    folder, kept = staging.parent, staging.parent / renames.originals
    if (staging / ORIGINALS).is_dir():
        move(staging / ORIGINALS, kept)
    if renames.labels and (staging / LABELS).is_dir():
        if (folder / renames.labels).is_dir() and not (kept / renames.labels).exists():
            move(folder / renames.labels, kept / renames.labels)
        move(staging / LABELS, folder / renames.labels)
    for name in renames.descriptions:
        if (staging / NEW / name).is_file():
            move(staging / NEW / name, folder / name)
    remove(staging / _RECORD)


def _put_back(staging: Path, renames: Renames) -> None:
    """Undo those renames that were done, the last first; raises StorageError when even that fails."""
    folder, kept = staging.parent, staging.parent / renames.originals
    try:
        for name in reversed(renames.descriptions):
            if not (staging / NEW / name).exists():
                _restore(staging / _OLD / name, folder / name)
        if renames.labels and not (staging / LABELS).exists():
            move(folder / renames.labels, staging / LABELS)
        if renames.labels and (kept / renames.labels).exists():
            move(kept / renames.labels, folder / renames.labels)
        if not (staging / ORIGINALS).exists():
            move(kept, staging / ORIGINALS)
        remove(staging / _RECORD)
    except OSError as error:
        raise _unfinished(folder, error) from error


def _restore(old: Path, path: Path) -> None:
    if old.exists():
        move(old, path)
    else:
        remove(path)


def _cannot_mend(folder: Path, error: OSError) -> StorageError:
    return StorageError(
        f"Cannot write {folder} ({error.strerror or error}); the task is as it was. Choose a folder you may write to."
    )


def _unfinished(folder: Path, error: OSError) -> StorageError:
    return StorageError(
        f"The files of {folder} are mended only half ({error.strerror or error}); close programs that use them and run "
        "'nnsegment check --fix' again, which finishes it."
    )
