"""What prepared cases are made of: the state of their files, as preparation notes it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .records import read_json


@dataclass(frozen=True)
class CaseFiles:
    """A case, and the state of its images and labels when it was prepared."""

    case_id: str
    stamps: tuple[tuple[int, ...], ...] = ()
    """Time of change (ns) and size (bytes) of each file; empty where preparation noted nothing."""


def preparation_note(prepared: Path, case_id: str) -> Path:
    """Where preparation says which files a case was made of; there only when the case is complete."""
    return prepared / f"{case_id}.made_of"


def files_of(prepared: Path, case_ids: Iterable[str]) -> tuple[CaseFiles, ...]:
    """What preparation noted of each case."""
    notes = ((case_id, preparation_note(prepared, case_id)) for case_id in case_ids)
    return tuple(
        CaseFiles(case_id, tuple(map(tuple, read_json(note))) if note.is_file() else ()) for case_id, note in notes
    )
