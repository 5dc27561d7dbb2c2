"""Tasks from 3D Slicer's scene: pairs of volumes and segmentations become cases on disk.

The nodes come from Slicer, but nothing here imports it; `scene` reads them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .case_files import (
    CaseArrays,
    add_to_task,
    build_task,
    case_name,
    require_volume_ending,
    task_folder,
    write_case,
    write_channels,
)
from .errors import TaskError
from .folders import Workspace
from .labels import LabelSet
from .overlaps import require_no_overlap, with_overlaps
from .progress import Progress, silent
from .scene import PREDICTION_ATTRIBUTE, read_case, segment_table, sequence
from .segment_names import labels_from_rows
from .task import Case, Task, load_task

_NOT_THE_SUBJECT = re.compile(r"(^|[\W_]+)(segmentations?|seg|labels?|labelmap|mask|gt|0000)(?=$|[\W_])", re.IGNORECASE)
REFERENCE_ROLE = "referenceImageGeometryRef"
"""How a segmentation node names the volume it was drawn on."""


@dataclass(frozen=True)
class Pair:
    """Nodes that make up one case."""

    volumes: tuple
    """One volume node per channel."""
    segmentation: object
    found_by: str = ""
    """'reference' (the segmentation's own reference volume) or 'name'."""

    @property
    def is_prediction(self) -> bool:
        """Whether the segmentation was made to show a prediction, corrected since or not."""
        return bool(self.segmentation.GetAttribute(PREDICTION_ATTRIBUTE))


def create_task_from_nodes(
    workspace: Workspace | Path | str,
    name: str,
    channels: Sequence[str],
    pairs: Sequence[Pair | tuple],
    *,
    number: int | None = None,
    case_ids: Sequence[str] | None = None,
    segments: Sequence[str] | None = None,
    overlap: str = "regions",
    irregular: str = "resample",
    file_ending: str = ".nii.gz",
    progress: Progress = silent,
) -> Task:
    """A new task from pairs of (volumes, segmentation); its folder appears whole or not at all.

    `volumes` is one node, or one per channel. `segments` names those that count, in the order of their label values;
    all of them otherwise. Segments that overlap become regions, or are refused by name with `overlap="refuse"`.
    A sheared volume, or one under a non-linear transform, is brought onto a regular grid, or refused with
    `irregular="refuse"`. What had to be done is logged and kept in cases.json.
    Raises ImageError for nodes and TaskError for segments that cannot be used, StorageError.
    """
    require_volume_ending(file_ending)
    place = workspace if isinstance(workspace, Workspace) else Workspace.at(workspace)
    target = task_folder(place, name, number)
    pairs = [pair if isinstance(pair, Pair) else Pair(sequence(pair[0]), pair[1]) for pair in pairs]
    if not pairs:
        raise TaskError(
            "A task needs at least one volume with a segmentation that is no prediction, found none; load one of each, "
            "or give the pairs of a corrected prediction and its volume."
        )
    labels = labels_from_rows([segment_table(pair.segmentation) for pair in pairs], segments)
    ids = _case_ids(pairs, case_ids)
    cases = (
        read_case(case_id, pair.volumes, pair.segmentation, labels, irregular=irregular, others="skip")
        for case_id, pair in zip(ids, pairs, strict=True)
    )
    counted = _counted(cases, ids, progress)
    return load_task(build_task(target, tuple(channels), labels, counted, overlap=overlap, file_ending=file_ending))


def add_case(
    task: Task,
    volume_nodes,
    segmentation_node,
    *,
    case_id: str = "",
    replace_case: bool = False,
    others: str = "refuse",
    irregular: str = "resample",
) -> Task:
    """The task with one case more, whose segments are those of the task by name or terminology.

    Segments that the task does not know are refused by name, or left out with `others="skip"`.
    Raises TaskError when the case exists (unless `replace_case`) or its segments do not fit, ImageError, StorageError.
    """
    volumes = sequence(volume_nodes)
    taken = [case.id for case in task.cases]
    if case_id in taken and not replace_case:
        raise TaskError(f"{task.name} has a case {case_id} already; give another name, or replace it.")
    case_id = case_name(case_id) if case_id else case_name(volumes[0].GetName(), taken)
    case = read_case(case_id, volumes, segmentation_node, task.labels, irregular=irregular, others=others)
    add_to_task(task, case)
    return load_task(task.folder)


def export_case(
    folder: Path,
    case_id: str,
    volume_nodes,
    segmentation_node,
    labels: LabelSet | None = None,
    *,
    overlap: str = "regions",
    irregular: str = "resample",
    others: str = "refuse",
    file_ending: str = ".nii.gz",
) -> Case:
    """Write one case into a task's folder (imagesTr, labelsTr) without touching dataset.json.

    Without `labels` the segments get the values 1, 2, … in their order. Raises ImageError, TaskError, StorageError.
    """
    require_volume_ending(file_ending)
    known = labels or labels_from_rows([segment_table(segmentation_node)])
    case = read_case(case_id, volume_nodes, segmentation_node, known, irregular=irregular, others=others)
    if overlap == "refuse":
        require_no_overlap(case_id, case.segments.counts)
    if labels is None:
        known = with_overlaps(known, case.segments.counts)
    return write_case(Path(folder), case, known, file_ending)[0]


def export_images(
    folder: Path, case_id: str, volume_nodes, *, irregular: str = "resample", file_ending: str = ".nii.gz"
) -> tuple[Path, ...]:
    """Write the channels of one case to predict, `ID_0000.ending` and so on; raises ImageError, StorageError."""
    require_volume_ending(file_ending)
    case = read_case(case_id, volume_nodes, None, irregular=irregular)
    return write_channels(Path(folder), case, file_ending)


def find_pairs(scene, *, predictions: bool = False) -> tuple[Pair, ...]:
    """Each segmentation with the volume it was drawn on: its reference volume, else the only one of the same name.

    Hidden nodes and label maps of volumes that have a segmentation are left out. So are predictions, which nobody
    should train on uncorrected, unless `predictions` asks for them too.
    """
    label_maps = _nodes(scene, "vtkMRMLLabelMapVolumeNode")
    volumes = [node for node in _nodes(scene, "vtkMRMLScalarVolumeNode") if node not in label_maps]
    pairs: list[Pair] = []
    for node in (*_nodes(scene, "vtkMRMLSegmentationNode"), *label_maps):
        reference = node.GetNodeReference(REFERENCE_ROLE)
        same = [volume for volume in volumes if _subject(volume) == _subject(node)]
        found = [reference] if reference in volumes else same
        is_taken = any(found == list(pair.volumes) for pair in pairs if not pair.is_prediction)
        if len(found) == 1 and not (is_taken and node in label_maps):
            pairs.append(Pair(tuple(found), node, "reference" if reference in volumes else "name"))
    return tuple(pair for pair in pairs if predictions or not pair.is_prediction)


def _case_ids(pairs: Sequence[Pair], given: Sequence[str] | None) -> list[str]:
    names = [pair.volumes[0].GetName() for pair in pairs] if given is None else list(given)
    if len(names) != len(pairs):
        raise TaskError(f"Expected {len(pairs)} case names, one per pair, found {len(names)}.")
    ids: list[str] = []
    for name in names:
        ids.append(case_name(name, ids))
    return ids


def _counted(cases: Iterable[CaseArrays], ids: Sequence[str], progress: Progress) -> Iterator[CaseArrays]:
    for done, case in enumerate(cases):
        progress(done, len(ids), f"Writing {ids[done]}")
        yield case
    progress(len(ids), len(ids), "Writing cases")


def _nodes(scene, class_name: str) -> list:
    found = [scene.GetNthNodeByClass(n, class_name) for n in range(scene.GetNumberOfNodesByClass(class_name))]
    return [node for node in found if not node.GetHideFromEditors()]


def _subject(node) -> str:
    """A node's name without the words that say what kind of node it is."""
    return re.sub(r"[\W_]+", " ", _NOT_THE_SUBJECT.sub(" ", node.GetName())).strip().casefold()
