"""Mend what can be mended without guessing. Originals are kept; a task is mended or untouched, never in between."""

from __future__ import annotations

import contextlib
import logging
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..cases import ValueChange, load_origin, save_origin
from ..colors import save_label_colors
from ..copying import copy_file
from ..errors import StorageError
from ..folders import LABELS_CSV
from ..image import LabelMap, read_geometry, read_labels, write_labels
from ..label_files import renumbered
from ..progress import Progress, in_parallel, silent
from ..records import umask, write_json
from ..task import Case, Task
from .check import examine_task, findings_of, renumbering_of
from .findings import CASE_COUNT, LABEL_DIRECTION, LABEL_GRID, LABEL_NUMBERS, Finding
from .grids import carried_over, foreground_ml
from .renumbering import Renumbering

logger = logging.getLogger(__name__)
_LEAST_FOREGROUND_KEPT = 0.8
_NOTHING = Renumbering((), ())


@dataclass(frozen=True)
class _Mending:
    """What to do to the label file of one case."""

    case: Case
    findings: tuple[Finding, ...]
    changes: tuple[ValueChange, ...]

    @property
    def moves(self) -> bool:
        return any(finding.check in (LABEL_GRID, LABEL_DIRECTION) for finding in self.findings)


@dataclass(frozen=True)
class _Mended:
    """What was done to it: findings that are gone, and sentences for cases.json."""

    case: Case
    findings: tuple[Finding, ...] = ()
    sentences: tuple[str, ...] = ()


def fix_task(task: Task, workers: int = 2, progress: Progress = silent) -> list[Finding]:
    """Mend every fixable finding and return those mended; load the task again afterwards.

    Labels on another grid are resampled onto their image's (nearest voxel in the world), positions that differ by
    rounding are made equal, values are renumbered to 0, 1, 2, … in the files and in dataset.json, and numTraining is
    corrected. cases.json tells what was done. Files that change are kept in `originals/`; label files outside the
    task's folder are left alone, and dataset.json then points at the mended copy.
    Labels that would lose foreground by resampling are not touched. Raises StorageError.
    """
    reports = examine_task(task, workers, progress)
    fixable = [finding for finding in findings_of(task, reports) if finding.fixable]
    if not fixable:
        return []
    renumbering = renumbering_of(task, reports) or _NOTHING
    mendings = [
        _Mending(case, tuple(f for f in fixable if f.case == case.id), _changes_in(report.values, renumbering))
        for case, report in zip(task.cases, reports, strict=True)
    ]
    with _staging(task.folder) as staging:
        needed = [mending for mending in mendings if mending.findings or mending.changes]
        mended = in_parallel(partial(_mend, task, staging), needed, workers, progress, "Mending labels")
        mended = [result for result in mended if result.sentences]
        whole_task = [f for f in fixable if f.check in (LABEL_NUMBERS, CASE_COUNT)]
        _install(task, staging, [result.case for result in mended], renumbering)
    _note(task, mended, whole_task)
    return [*whole_task, *(finding for result in mended for finding in result.findings)]


def _changes_in(values: frozenset[int] | None, renumbering: Renumbering) -> tuple[ValueChange, ...]:
    return renumbering.files if any(change.before in (values or ()) for change in renumbering.files) else ()


def _mend(task: Task, staging: Path, mending: _Mending) -> _Mended:
    """Write the mended labels of one case to the staging folder; nothing when that would lose foreground."""
    labels, findings, sentences = read_labels(mending.case.labels), list(mending.findings), []
    if mending.moves:
        placed = _placed(mending, labels)
        if placed is None:
            findings = [finding for finding in findings if finding.check != LABEL_GRID]
        else:
            labels = placed
            sentences.append("labels put onto the image's grid (nearest voxel)")
    if mending.changes:
        labels = LabelMap(renumbered(labels.array, mending.changes), labels.geometry)
        sentences.append("values renumbered " + ", ".join(f"{c.before} to {c.after}" for c in mending.changes))
    if sentences:
        write_labels(staging / (mending.case.id + task.file_ending), labels.array, labels.geometry)
    return _Mended(mending.case, tuple(findings) if sentences else (), tuple(sentences))


def _placed(mending: _Mending, labels: LabelMap) -> LabelMap | None:
    grid = read_geometry(mending.case.images[0])
    if any(finding.check == LABEL_DIRECTION for finding in mending.findings):
        return LabelMap(labels.array, grid)
    moved = LabelMap(carried_over(labels, grid), grid)
    if foreground_ml(moved) < _LEAST_FOREGROUND_KEPT * foreground_ml(labels):
        logger.warning(
            "%s keeps its labels: on the image's grid they would shrink from %.3g to %.3g ml.",
            mending.case.id,
            foreground_ml(labels),
            foreground_ml(moved),
        )
        return None
    return moved


@contextlib.contextmanager
def _staging(folder: Path) -> Iterator[Path]:
    try:
        staging = Path(tempfile.mkdtemp(prefix=".mending-", dir=folder))
        staging.chmod(0o777 & ~umask())
    except OSError as error:
        raise _cannot_mend(folder, error) from error
    try:
        yield staging
    except OSError as error:
        raise _cannot_mend(folder, error) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _install(task: Task, staging: Path, cases: Sequence[Case], renumbering: Renumbering) -> None:
    """Put the mended labels in place by renaming whole folders, then describe them in dataset.json."""
    originals = _free_folder(task.folder, "originals")
    originals.mkdir()
    values = task.dataset_json
    copy_file(task.folder / "dataset.json", originals / "dataset.json")
    if cases and "dataset" in values:
        values["dataset"] = values["dataset"] | _relocated(task, staging, cases, values["dataset"])
    elif cases:
        _swap(task.folder / "labelsTr", staging, originals)
    labels = renumbering.of_labels(task.labels)
    write_json(task.folder / "dataset.json", values | labels.to_dataset_json() | {"numTraining": len(task.cases)})
    if renumbering.declared:
        save_label_colors(task.folder / LABELS_CSV, labels)


def _relocated(task: Task, staging: Path, cases: Sequence[Case], listed: dict) -> dict:
    folder = _free_folder(task.folder, "labels_mended")
    staging.rename(folder)
    return {case.id: listed[case.id] | {"label": f"{folder.name}/{case.id}{task.file_ending}"} for case in cases}


def _swap(labels: Path, staging: Path, originals: Path) -> None:
    for path in labels.iterdir():
        if path.is_file() and not (staging / path.name).exists():
            copy_file(path, staging / path.name)
    labels.rename(originals / labels.name)
    try:
        staging.rename(labels)
    except OSError:
        (originals / labels.name).rename(labels)
        raise


def _free_folder(parent: Path, name: str) -> Path:
    candidates = (parent / (name if n == 1 else f"{name}_{n}") for n in range(1, 10**6))
    return next(path for path in candidates if not path.exists())


def _note(task: Task, mended: Sequence[_Mended], whole_task: Sequence[Finding]) -> None:
    fixes = tuple((result.case.id, sentence) for result in mended for sentence in result.sentences)
    save_origin(load_origin(task.folder).with_fixes(fixes), task.folder)
    for finding in whole_task:
        logger.info("%s: %s corrected, was %s.", task.name, finding.check, finding.found)


def _cannot_mend(folder: Path, error: OSError) -> StorageError:
    return StorageError(
        f"Cannot write {folder} ({error.strerror or error}); the task is as it was. Choose a folder you may write to."
    )
