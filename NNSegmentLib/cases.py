"""cases.json: where each case of a task came from and what was done to it. Ours; nnU-Net does not read it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, replace
from itertools import chain, count
from pathlib import Path

from .errors import TaskError
from .file_names import DEVICES, composed
from .image import FILE_ENDINGS
from .records import from_json, read_json, to_json, write_json

CASES_FILE = "cases.json"


@dataclass(frozen=True)
class ValueChange:
    """A label value of the source and the value it became."""

    before: int
    after: int


@dataclass(frozen=True)
class CaseOrigin:
    """One case: the files it was made from, and what `check --fix` did to it."""

    id: str
    images: tuple[str, ...] = ()
    labels: str = ""
    """Empty when there is no label file."""
    fixes: tuple[str, ...] = ()


@dataclass(frozen=True)
class TaskOrigin:
    """A whole task: its source folder, the format it had, and its cases."""

    source: str = ""
    format: str = ""
    values_changed: tuple[ValueChange, ...] = ()
    """Label values renumbered at conversion, old to new."""
    cases: tuple[CaseOrigin, ...] = ()
    remarks: tuple[str, ...] = ()
    """Sentences about the data set as a whole, for whoever converted it."""

    def with_fixes(self, fixes: tuple[tuple[str, str], ...]) -> TaskOrigin:
        """The same with fixes added, given as (case id, sentence) pairs; unknown cases are added."""
        by_id = {case.id: case for case in self.cases}
        for case_id, sentence in fixes:
            case = by_id.get(case_id, CaseOrigin(case_id))
            by_id[case_id] = replace(case, fixes=(*case.fixes, sentence))
        return replace(self, cases=tuple(by_id.values()))


def load_origin(task_folder: Path) -> TaskOrigin:
    """cases.json of a task's raw folder; an empty record when there is none; raises TaskError when it is damaged."""
    path = task_folder / CASES_FILE
    return from_json(TaskOrigin, read_json(path), TaskError) if path.is_file() else TaskOrigin()


def save_origin(origin: TaskOrigin, task_folder: Path) -> None:
    """Write cases.json; raises StorageError."""
    write_json(task_folder / CASES_FILE, to_json(origin))


def repeated(names: Iterable[str]) -> list[str]:
    """Those that are there more than once, sorted."""
    return sorted(name for name, n in Counter(names).items() if n > 1)


def case_name(text: str, taken: Sequence[str] = ()) -> str:
    """A case id from a node's or folder's name: without file ending, spaces and path signs, different from those taken.

    Ids that differ in small and capital letters alone would be one file on Windows and macOS.
    """
    return _free(_plain_name(text), {composed(case_id).casefold() for case_id in taken})


def case_names(texts: Iterable[str]) -> list[str]:
    """The case ids of several nodes or folders, each as `case_name` gives it and different from those before it."""
    names: list[str] = []
    used: set[str] = set()
    for text in texts:
        names.append(_free(_plain_name(text), used))
        used.add(names[-1].casefold())
    return names


def _plain_name(text: str) -> str:
    text = composed(text)
    for ending in FILE_ENDINGS:
        text = text.removesuffix(ending)
    name = re.sub(r"[^\w.+-]+", "_", text).strip("_.") or "case"
    return DEVICES.sub(r"\1_", name)


def _free(name: str, used: Set[str]) -> str:
    """The name, with a number where it is among those used, which are in small letters."""
    names = chain([name], (f"{name}-{n}" for n in count(2)))
    return next(candidate for candidate in names if candidate.casefold() not in used)
