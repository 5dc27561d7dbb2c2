"""Cases that arrive as arrays, not as files: written into a task's folder and described in its dataset.json."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from .cases import CaseOrigin, TaskOrigin, case_name, load_origin, save_origin
from .colors import save_label_colors
from .copying import folder_made_whole
from .errors import TaskError
from .folders import DATASET_NAME, LABELS_CSV, Workspace, visible
from .geometry import Geometry
from .image import write_image
from .labels import LabelSet
from .records import copy_whole, read_json, write_json
from .segments.label_files import kept_later, settle_values, write_coded, write_provisional
from .segments.overlaps import TOLERANCE, Combined, Names, painted_value, value_of
from .task import Case, Task, write_dataset_json
from .task_names import new_task_name

__all__ = ["CaseArrays", "add_to_task", "build_task", "case_name", "require_volume_ending", "task_folder"]
VOLUME_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd")
_log = logging.getLogger(__name__)
FORMAT = "3D Slicer scene"
REPLACED = "labels_replaced"
"""In a task's folder: label maps whose cases were given others."""


@dataclass(frozen=True)
class CaseArrays:
    """One case in memory, all of it on one regular grid."""

    channels: tuple[np.ndarray, ...]
    """One array (Z, Y, X) per channel."""
    geometry: Geometry
    segments: Combined | None
    """None for a case without labels."""
    origin: CaseOrigin
    """Where it came from and what had to be done to it."""


def build_task(
    folder: Path,
    channels: tuple[str, ...],
    labels: LabelSet,
    cases: Iterable[CaseArrays],
    *,
    overlap: str = "regions",
    file_ending: str = ".nii.gz",
) -> Path:
    """Write a new task, whole or not at all; `cases` are taken one after the other, so that one is in memory.

    Raises TaskError for a case with another number of channels, and for overlaps with `overlap="refuse"`, StorageError.
    """
    with folder_made_whole(folder) as building:
        written, origins = [], []
        for case in cases:
            _require_channels(case, channels)
            write_channels(building / "imagesTr", case, file_ending)
            path = building / "labelsTr" / (case.origin.id + file_ending)
            written.append(write_provisional(path, case.origin.id, case.segments, case.geometry, labels))
            origins.append(case.origin)
        labels, notes = settle_values(written, labels, overlap)
        origins = [_with_notes(origin, own) for origin, own in zip(origins, notes, strict=True)]
        _describe_task(building, channels, labels, file_ending, origins)
    return folder


def add_to_task(task: Task, case: CaseArrays) -> None:
    """Write one case into an existing task and enter it in dataset.json and cases.json.

    A label map that it replaces is kept in the task's folder `labels_replaced`.
    Raises TaskError when it has another number of channels, or overlaps that the task's labels do not know.
    """
    _require_channels(case, [channel.name for channel in task.channels])
    _keep_labels(task, case.origin.id)
    written, notes = write_case(task.folder, case, task.labels, task.file_ending)
    _register_case(task.folder, written, _with_notes(case.origin, notes))


def _keep_labels(task: Task, case_id: str) -> None:
    """Copy a case's label map aside, if it has one; raises StorageError."""
    path, kept = task.folder / "labelsTr" / (case_id + task.file_ending), task.folder / REPLACED
    if path.is_file():
        taken = [file.name.removesuffix(task.file_ending) for file in visible(kept)]
        copy_whole(path, kept / (case_name(case_id, taken) + task.file_ending))


def write_case(folder: Path, case: CaseArrays, labels: LabelSet, file_ending: str) -> tuple[Case, tuple[str, ...]]:
    """Write the files of one case below a task's folder; returns it, and sentences about overlaps painted over.

    Raises TaskError, before anything is written, when segments overlap in a way that the labels do not know.
    """
    case_id = case.origin.id
    values, notes = _known_values(case, labels)
    path = folder / "labelsTr" / (case_id + file_ending)
    images = write_channels(folder / "imagesTr", case, file_ending)
    write_coded(path, case.segments, values, case.geometry)
    return Case(case_id, images, path), notes


def write_channels(folder: Path, case: CaseArrays, file_ending: str) -> tuple[Path, ...]:
    """One file `ID_0000.ending` per channel in `folder`; raises StorageError."""
    paths = tuple(folder / f"{case.origin.id}_{n:04d}{file_ending}" for n in range(len(case.channels)))
    for path, array in zip(paths, case.channels, strict=True):
        write_image(path, array, case.geometry)
    return paths


def _known_values(case: CaseArrays, labels: LabelSet) -> tuple[list[int], tuple[str, ...]]:
    counts, values, notes = case.segments.counts, [], []
    for names in case.segments.combinations:
        value = value_of(labels, names)
        if value is None and names in counts:
            notes.append(_painted_over(case.origin.id, names, counts))
        values.append(painted_value(labels, names) if value is None else value)
    return values, tuple(notes)


def _describe_task(
    folder: Path, channels: tuple[str, ...], labels: LabelSet, file_ending: str, origins: Sequence[CaseOrigin]
) -> None:
    """Write dataset.json, labels.csv and cases.json of a new task; raises StorageError."""
    write_dataset_json(folder, channels, labels, len(origins), file_ending)
    save_label_colors(folder / LABELS_CSV, labels)
    save_origin(TaskOrigin(source=FORMAT, format=FORMAT, cases=tuple(origins)), folder)


def _register_case(folder: Path, case: Case, origin: CaseOrigin) -> None:
    """Enter a case whose files are written into dataset.json and cases.json of a task; raises StorageError."""
    values = read_json(folder / "dataset.json")
    if isinstance(values.get("dataset"), Mapping):
        entry = {"images": [str(path) for path in case.images], "label": str(case.labels)}
        values["dataset"] = {**values["dataset"], case.id: entry}
        values["numTraining"] = len(values["dataset"])
    else:
        values["numTraining"] = len(visible(folder / "labelsTr", "*" + values["file_ending"]))
    write_json(folder / "dataset.json", values)
    known = load_origin(folder)
    others = tuple(old for old in known.cases if old.id != case.id)
    save_origin(replace(known, cases=(*others, origin)), folder)


def task_folder(workspace: Workspace, name: str, number: int | None = None) -> Path:
    """Where a new task goes: its raw folder 'DatasetNNN_Name'; raises TaskError when number or name is taken."""
    made = new_task_name(workspace, name, number)
    text = DATASET_NAME.match(made).group(2)
    for taken in workspace.task_names():
        if DATASET_NAME.match(taken).group(2) == text:
            raise TaskError(f"{taken} exists in {workspace.raw.parent} already; choose another name.")
    return workspace.raw / made


def require_volume_ending(file_ending: str) -> None:
    """Raise TaskError unless files of this type hold 3-D volumes with their place in the patient."""
    if file_ending not in VOLUME_ENDINGS:
        raise TaskError(f"Volumes are written as {', '.join(VOLUME_ENDINGS)}, found {file_ending!r}.")


def _require_channels(case: CaseArrays, channels: Sequence[str]) -> None:
    if len(case.channels) != len(channels):
        raise TaskError(
            f"{case.origin.id} has {len(case.channels)} channels, but the task has {len(channels)} "
            f"({', '.join(channels)}); choose one volume per channel."
        )


def _with_notes(origin: CaseOrigin, notes: Sequence[str]) -> CaseOrigin:
    for note in notes:
        _log.warning("%s: %s", origin.id, note)
    return replace(origin, fixes=(*origin.fixes, *notes))


def _painted_over(case_id: str, names: Names, counts: Mapping[Names, int]) -> str:
    smallest = min(sum(n for s, n in counts.items() if name in s) for name in names)
    if counts[names] > TOLERANCE * smallest:
        raise TaskError(
            f"{case_id}: {' and '.join(sorted(names))} overlap in {counts[names]} voxels, but the labels of the task know "
            "no such overlap; separate them in the Segment Editor, or make a new task from all cases."
        )
    return kept_later(names, counts[names])
