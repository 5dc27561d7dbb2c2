"""Which weights made a prediction, noted beside it, so that what earlier weights made is not taken for the present's."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import TaskError
from ..folders import FoldFolder, ModelFolders, visible
from ..preprocessing.storage import previous_stage_file
from ..records import from_json, read_json, remove, to_json, write_json
from .made_of import CaseFiles, files_of

_WITH_PROBABILITIES = (".npz", ".pkl")


@dataclass(frozen=True)
class Weights:
    """A checkpoint as it was when it predicted."""

    fold: int | str
    checkpoint: str
    """Name of the file."""
    steps: int
    """Optimiser steps that had been done."""
    stamp: tuple[int, ...]
    """Time of change (ns) and size (bytes) of the file."""
    sha256: str

    @classmethod
    def of(cls, path: Path, fold: int | str, steps: int) -> Weights:
        """What identifies a checkpoint file, wherever it is copied to."""
        return cls(fold, path.name, steps, _stamp(path), _sha256(path))

    def are_replaced_in(self, folder: FoldFolder, by_content: bool = True) -> bool:
        """Whether a fold would predict with other weights now; not where it has none to compare with.

        Without `by_content` a copy with another time counts as others.
        """
        path = folder.weights
        return path is not None and _stamp(path) != self.stamp and not (by_content and _sha256(path) == self.sha256)


@dataclass(frozen=True)
class PredictedBy:
    """What made the label maps of a validation."""

    weights: Weights
    cases: tuple[CaseFiles, ...]
    step: float | None = None
    """How far the sliding window moved, as a share of the patch; earlier versions did not note it, nor the next."""
    mirroring: bool | None = None

    def is_like(self, other: PredictedBy) -> bool:
        """Whether both make the same of the same files, as far as they tell."""
        settings = ((self.step, other.step), (self.mirroring, other.mirroring))
        return self.weights.sha256 == other.weights.sha256 and all(
            ours == theirs or None in (ours, theirs) for ours, theirs in settings
        )


@dataclass(frozen=True)
class StageInput:
    """What made the segmentation of a case that the cascade's next stage takes as input."""

    weights: Weights
    files: CaseFiles
    held_out: bool
    """Whether the weights were not trained on the case."""

    def is_of(self, files: CaseFiles, weights: Weights) -> bool:
        """Whether it is what this fold's weights make of these files."""
        return (self.weights.fold, self.weights.sha256, self.files) == (weights.fold, weights.sha256, files)


def load_predicted_by(folder: FoldFolder) -> PredictedBy | None:
    """What made a fold's validation; None for those of nnU-Net or earlier versions."""
    return _load(PredictedBy, folder.predicted_by)


def files_to_predict(prepared: Path, previous_stage: Path | None, case_ids: Iterable[str]) -> tuple[CaseFiles, ...]:
    """What a network sees of each case: its files as they were prepared and, in a cascade, what the previous stage gave."""
    found = files_of(prepared, case_ids)
    if previous_stage is None:
        return found
    notes = {files.case_id: load_stage_input(previous_stage, files.case_id) for files in found}
    return tuple(
        replace(files, previous_stage=note.weights.sha256) if (note := notes[files.case_id]) else files
        for files in found
    )


def changed_since_predicted(folder: FoldFolder, prepared: Path, previous_stage: Path | None) -> list[str]:
    """The cases of a validation that were prepared, or predicted by the previous stage, in another state since."""
    made_by = load_predicted_by(folder)
    cases = made_by.cases if made_by else ()
    now = files_to_predict(prepared, previous_stage, [files.case_id for files in cases])
    return [files.case_id for files in now if files not in cases]


def made_with_other_stage(made_by: PredictedBy, stage: ModelFolders, configuration: str) -> list[str]:
    """The cases of a cascade's validation whose input other weights of the earlier `stage` make now."""
    folder, cases = stage.next_stage(configuration), [files for files in made_by.cases if files.previous_stage]
    notes = {files.case_id: note for files in cases if (note := load_stage_input(folder, files.case_id))}
    replaced = {w for w in {note.weights for note in notes.values()} if w.are_replaced_in(stage.fold(w.fold))}
    return [
        files.case_id
        for files in cases
        if (note := notes.get(files.case_id))
        and (note.weights.sha256 != files.previous_stage or note.weights in replaced)
    ]


def keep_present(folder: FoldFolder, now: PredictedBy, ending: str) -> tuple[str, ...]:
    """Remove label maps of other weights, files, cases or windows from a validation, and note what makes those to come.

    Without a note those of runs that we began are kept where they are younger than the weights, and those of others
    whenever they were copied here. Returns the removed cases' ids; raises StorageError, OSError.
    """
    before, oldest_ns = load_predicted_by(folder), _oldest_of_unnoted_ns(folder)
    is_alike = before is not None and before.is_like(now)
    wanted = {files.case_id: files for files in now.cases}
    removed = set()
    for path in visible(folder.validation):
        case_id = _case_of(path, ending)
        if case_id is None:
            continue
        is_present = case_id in wanted and (
            is_alike and wanted[case_id] in before.cases if before else path.stat().st_mtime_ns >= oldest_ns
        )
        if not is_present:
            remove(path)
            removed.add(case_id)
    if removed:
        remove(folder.summary)
    write_json(folder.predicted_by, to_json(now))  # last: until then the next look removes the same
    return tuple(sorted(removed))


def _oldest_of_unnoted_ns(folder: FoldFolder) -> int:
    return folder.weights.stat().st_mtime_ns if folder.made_of.is_file() else 0


def load_stage_input(folder: Path, case_id: str) -> StageInput | None:
    """What made a case's input of the next stage; None when there is none, or an earlier version wrote it."""
    return _load(StageInput, _stage_note(folder, case_id))


def note_stage_input(made_by: StageInput, folder: Path) -> None:
    """Say what made the input that was just written; raises StorageError."""
    write_json(_stage_note(folder, made_by.files.case_id), to_json(made_by))


def forget_stage_input(folder: Path, case_id: str) -> None:
    """Remove what is there of a case's input, its note first; raises OSError."""
    remove(_stage_note(folder, case_id))
    remove(previous_stage_file(folder, case_id))


def _load(cls: type, path: Path):
    """A note; None where there is none or it cannot be read, since what it is about can be made anew."""
    try:
        return from_json(cls, read_json(path)) if path.is_file() else None
    except TaskError:
        return None


def _stage_note(folder: Path, case_id: str) -> Path:
    return previous_stage_file(folder, case_id).with_suffix(".json")


def _case_of(path: Path, ending: str) -> str | None:
    """The case that a file of a validation belongs to; None for summaries and notes."""
    return next((path.name.removesuffix(e) for e in (ending, *_WITH_PROBABILITIES) if path.name.endswith(e)), None)


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
