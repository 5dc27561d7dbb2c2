"""What a run is made of: the cases of its fold and the state of their files, noted beside it when it begins."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import RunError, TaskError, counted, some
from ..folders import FoldFolder
from ..folds import Fold
from ..records import from_json, lack_of, read_json, to_json, write_json


@dataclass(frozen=True)
class CaseFiles:
    """A case, and the state of its images and labels when it was prepared."""

    case_id: str
    stamps: tuple[tuple[int, ...], ...] = ()
    """Time of change (ns) and size (bytes) of each file; empty where preparation noted nothing."""
    previous_stage: str = ""
    """In a cascade the sha256 of the weights that made the case's input of the previous stage, where that is noted."""


@dataclass(frozen=True)
class MadeOf:
    """The cases that a run trains on and validates with."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    files: tuple[CaseFiles, ...]

    @classmethod
    def of(cls, fold: Fold, prepared: Path) -> MadeOf:
        """The fold as it is now, its files as they were prepared."""
        return cls(fold.train, fold.validation, files_of(prepared, sorted({*fold.train, *fold.validation})))

    def changed(self, prepared: Path) -> list[str]:
        """The training cases whose files were prepared in another state since; not those of which none was noted."""
        unknown = {files.case_id for files in self.files if not files.stamps}
        now = {files for files in files_of(prepared, self.train) if files.case_id not in unknown}
        return sorted(files.case_id for files in now - {*self.files})


def preparation_note(prepared: Path, case_id: str) -> Path:
    """Where preparation says which files a case was made of; there only when the case is complete."""
    return prepared / f"{case_id}.made_of"


def files_of(prepared: Path, case_ids: Iterable[str]) -> tuple[CaseFiles, ...]:
    """What preparation noted of each case."""
    notes = ((case_id, preparation_note(prepared, case_id)) for case_id in case_ids)
    return tuple(
        CaseFiles(case_id, tuple(map(tuple, read_json(note))) if note.is_file() else ()) for case_id, note in notes
    )


def save_made_of(made_of: MadeOf, folder: FoldFolder) -> None:
    """Note what a run is made of; raises StorageError."""
    write_json(folder.made_of, to_json(made_of))


def load_made_of(folder: FoldFolder) -> MadeOf | None:
    """What the weights in a folder are made of; None without weights, and for those of nnU-Net or earlier versions."""
    if not folder.has_weights or not folder.made_of.is_file():
        return None
    return _noted(folder.made_of)


def elsewhere(path: Path) -> MadeOf:
    """A note as it holds where the same cases have files of their own: without the state of files; raises TaskError."""
    made_of = _noted(path)
    return replace(made_of, files=tuple(CaseFiles(files.case_id) for files in made_of.files))


def _noted(path: Path) -> MadeOf:
    values = read_json(path)
    try:
        return from_json(MadeOf, values)
    except TaskError as damaged:
        raise TaskError(
            f"{path} does not tell what the run is made of ({lack_of(damaged)}); delete it, and nothing is known of that."
        ) from damaged


def seen_in_training(folder: FoldFolder, validation: Iterable[str]) -> list[str]:
    """Those of the cases that a run was only trained on; what trains and validates from its beginning is meant to."""
    made_of = load_made_of(folder)
    return sorted({*validation} & {*made_of.train} - {*made_of.validation}) if made_of else []


def trained_and_validated(folder: FoldFolder) -> list[str]:
    """The cases that a run both trained on and validates with, as the only case of a task does."""
    made_of = load_made_of(folder)
    return sorted({*made_of.train} & {*made_of.validation}) if made_of else []


def require_unseen(folder: FoldFolder, validation: Iterable[str]) -> None:
    """Raises RunError when a run was trained on cases that it would validate with now."""
    if seen := seen_in_training(folder, validation):
        raise RunError(
            f"The run in {folder.folder} was trained on {counted(len(seen), 'case')} ({some(seen)}) that it would be "
            "validated with now; restore the splits_final.json of that time, or train it again without --resume."
        )


def require_same_training(folder: FoldFolder, train: Iterable[str], task: str) -> None:
    """Raises RunError when a run was begun with other training cases than it would go on with."""
    made_of = load_made_of(folder)
    before, now = {*made_of.train} if made_of else {*train}, {*train}
    differences = (("new", sorted(now - before)), ("gone", sorted(before - now)))
    told = "; ".join(f"{what}: {some(case_ids)}" for what, case_ids in differences if case_ids)
    if told:
        raise RunError(
            f"The run in {folder.folder} was begun with other training cases than it has now ({told}); restore the "
            "splits_final.json and cases of that time to go on, or begin again with 'nnsegment train' without --resume, "
            f"or with all folds by 'nnsegment plan {task} --anew'."
        )
