"""Mend what can be mended without guessing. Originals are kept; a task is mended or untouched, never in between."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..cases import CASES_FILE, ValueChange, load_origin, save_origin
from ..colors import save_label_colors
from ..copying import copy_file
from ..errors import StorageError, TaskError, some
from ..folders import LABELS_CSV, visible
from ..image import LabelMap, read_geometry, read_labels, write_labels
from ..image_files.text_headers import voxel_file
from ..machine.locks import one_after_another_in
from ..progress import Progress, in_parallel, silent
from ..records import write_json
from ..segments.label_files import renumbered
from ..task import Case, Task, load_task
from .check import examine_task, findings_of, renumbering_of
from .findings import CASE_COUNT, LABEL_DIRECTION, LABEL_GRID, LABEL_NUMBERS, Finding
from .grids import carried_over, foreground_ml
from .install import BESIDE, IN_PLACE, LABELS, NEW, ORIGINALS, finish_interrupted, free_name, gathering, install
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
    Labels that would lose foreground by resampling are not touched. One process mends a task at a time, others wait;
    a mending that was interrupted is finished first. Raises TaskError when files change meanwhile, StorageError.
    """
    with _alone_in(task.folder) as is_writable:
        if is_writable and finish_interrupted(task.folder):
            logger.warning("%s: the mending that was interrupted is finished now.", task.name)
        return _fix(load_task(task.folder), workers, progress)  # as it is now that nobody else mends it


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[bool]:
    """Wait until no other process mends the task; False where nothing can be written, so nothing be mended either."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(one_after_another_in(folder, logger.warning))
            is_writable = True
        except StorageError:
            is_writable = False
        yield is_writable


def _fix(task: Task, workers: int, progress: Progress) -> list[Finding]:
    before = _stamps(task)
    reports = examine_task(task, workers, progress)
    fixable = [finding for finding in findings_of(task, reports) if finding.fixable]
    if not fixable:
        return []
    renumbering = renumbering_of(task, reports) or _NOTHING
    mendings = [
        _Mending(case, tuple(f for f in fixable if f.case == case.id), _changes_in(report.values, renumbering))
        for case, report in zip(task.cases, reports, strict=True)
    ]
    with gathering(task.folder) as staging:
        needed = [mending for mending in mendings if mending.findings or mending.changes]
        mended = in_parallel(partial(_mend, task, staging), needed, workers, progress, "Mending labels")
        mended = [result for result in mended if result.sentences]
        whole_task = [f for f in fixable if f.check in (LABEL_NUMBERS, CASE_COUNT)]
        if mended or whole_task:
            labels = _gather(task, staging, mended, renumbering)
            _require_unchanged(task, before)
            install(staging, labels)
    for finding in whole_task:
        logger.info("%s: %s corrected, was %s.", task.name, finding.check, finding.found)
    return [*whole_task, *(finding for result in mended for finding in result.findings)]


def _stamps(task: Task) -> dict[Path, tuple[int, int]]:
    """When the files that mending replaces were last written, and how long they are."""
    labels = [case.labels for case in task.cases if case.labels]
    listed = visible(task.folder / IN_PLACE)
    descriptions = [task.folder / name for name in ("dataset.json", LABELS_CSV, CASES_FILE)]
    files = {path for path in (*labels, *listed, *descriptions) if path.is_file()}
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in files}


def _require_unchanged(task: Task, before: Mapping[Path, tuple[int, int]]) -> None:
    """Raises TaskError when somebody wrote label files or dataset.json meanwhile."""
    now = _stamps(task)
    changed = sorted(path.name for path in {*before, *now} if before.get(path) != now.get(path))
    if changed:
        raise TaskError(
            f"Files of {task.folder} should stay as they are while it is mended, but {some(changed, 3)} changed; the task "
            "was left alone, run 'nnsegment check --fix' again."
        )


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
        write_labels(staging / LABELS / (mending.case.id + task.file_ending), labels.array, labels.geometry)
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


def _gather(task: Task, staging: Path, mended: Sequence[_Mended], renumbering: Renumbering) -> str:
    """Write what else changes beside the mended labels; returns the name of the folder that these are to become."""
    values, folder = task.dataset_json, IN_PLACE
    copy_file(task.folder / "dataset.json", staging / ORIGINALS / "dataset.json")
    if "dataset" in values:
        folder = free_name(task.folder, BESIDE)
        values["dataset"] = values["dataset"] | {
            result.case.id: values["dataset"][result.case.id]
            | {"label": f"{folder}/{result.case.id}{task.file_ending}"}
            for result in mended
        }
    elif mended:
        old = [result.case.labels for result in mended]
        _copy_others(task.folder / IN_PLACE, staging / LABELS, {*old, *map(voxel_file, old)})
    labels = renumbering.of_labels(task.labels)
    new = values | labels.to_dataset_json() | {"numTraining": len(task.cases)}
    write_json(staging / NEW / "dataset.json", new)
    if renumbering.declared:
        save_label_colors(staging / NEW / LABELS_CSV, labels)
    fixes = tuple((result.case.id, sentence) for result in mended for sentence in result.sentences)
    save_origin(load_origin(task.folder).with_fixes(fixes), staging / NEW)
    return folder


def _copy_others(labels: Path, gathered: Path, mended: Set[Path | None]) -> None:
    """What was not mended; mended files may have had their ending in capitals or their voxels in a file beside them."""
    for path in labels.iterdir():
        if path.is_file() and path not in mended and not (gathered / path.name).exists():
            copy_file(path, gathered / path.name)
