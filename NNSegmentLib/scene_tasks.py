"""Tasks from 3D Slicer's scene: pairs of volumes and segmentations become cases on disk.

The nodes come from Slicer, but nothing here imports it; `scene` reads them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .case_files import CaseArrays, add_to_task, build_task, case_name, require_volume_ending, task_folder
from .cases import case_names
from .errors import ImageError, TaskError, require_choice
from .folders import Workspace
from .given import several
from .image import read_geometry, read_image
from .labels import LabelSet
from .nodes import described, require_segments, volumes_of
from .progress import Progress, silent
from .scene import IRREGULAR, PREDICTION_ATTRIBUTE, read_case, segment_table
from .segments.names import labels_from_rows
from .task import Case, Task, load_task

_NOT_THE_SUBJECT = re.compile(r"(^|[\W_]+)(segmentations?|seg|labels?|labelmap|mask|gt|0000)(?=$|[\W_])", re.IGNORECASE)
OVERLAP = ("regions", "refuse")
"""What may be done with segments that overlap."""
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
    channels: Sequence[str] | str,
    pairs: Sequence[Pair | tuple],
    *,
    number: int | None = None,
    case_ids: Sequence[str] | str | None = None,
    segments: Sequence[str] | str | None = None,
    overlap: str = "regions",
    irregular: str = "resample",
    file_ending: str = ".nii.gz",
    progress: Progress = silent,
) -> Task:
    """A new task from pairs of (volumes, segmentation); its folder appears whole or not at all.

    `volumes` is one node, or one per channel. `segments` names those that count, in the order of their label values;
    all of them otherwise. As these very segments give the labels, they count by name, whatever their terminology says.
    Segments that overlap become regions, or are refused by name with `overlap="refuse"`.
    A sheared volume, or one under a non-linear transform, is brought onto a regular grid, or refused with
    `irregular="refuse"`. What had to be done is logged and kept in cases.json.
    Raises ImageError for nodes and TaskError for segments that cannot be used, SettingsError, StorageError.
    """
    require_volume_ending(file_ending)
    require_choice("overlap", overlap, OVERLAP)
    require_choice("irregular", irregular, IRREGULAR)
    pairs, channels = pairs_of(pairs), several(channels, "the name of a channel, or of several")
    place = workspace if isinstance(workspace, Workspace) else Workspace.at(workspace)
    target = task_folder(place, name, number)
    if not pairs:
        raise TaskError(
            "A task needs at least one volume with a segmentation that is no prediction, found none; load one of each, "
            "or give the pairs of a corrected prediction and its volume."
        )
    labels = _labels_of(pairs, segments)
    ids = _case_ids(pairs, case_ids)
    cases = (
        read_case(
            case_id, pair.volumes, pair.segmentation, labels, irregular=irregular, others="skip", by_terminology=False
        )
        for case_id, pair in zip(ids, pairs, strict=True)
    )
    counted = _counted(cases, ids, progress)
    return load_task(build_task(target, channels, labels, counted, overlap=overlap, file_ending=file_ending))


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
    Raises TaskError when the case exists (unless `replace_case`) or its segments do not fit, ImageError, SettingsError,
    StorageError.
    """
    if not isinstance(task, Task):
        raise TaskError(f"Expected an opened task, found {described(task)}; open it first, with `open_task`.")
    volumes = volumes_of(volume_nodes)
    require_segments(segmentation_node)
    case_id = _added_id(task, case_id, replace_case) if case_id else _free_id(task, volumes)
    case = read_case(case_id, volumes, segmentation_node, task.labels, irregular=irregular, others=others)
    add_to_task(task, case)
    return load_task(task.folder)


def cases_named(task: Task, volume_node) -> tuple[Case, ...]:
    """The cases of a task that have the name of this volume, or its name with a number."""
    name = re.compile(re.escape(case_name(volume_node.GetName())) + r"(-\d+)?", re.IGNORECASE)
    return tuple(case for case in task.cases if name.fullmatch(case.id))


def case_of_image(task: Task, volume_nodes) -> Case | None:
    """The case of a task that was written from these very volumes, as far as its name and first channel tell.

    Raises ImageError for volumes and files that cannot be read.
    """
    volumes = volumes_of(volume_nodes)
    named = cases_named(task, volumes[0])
    image = read_case(named[0].id, volumes[:1]) if named else None
    return next((case for case in named if _is_written(image, case.images[0])), None)


def pairs_of(given: Iterable[Pair | tuple]) -> tuple[Pair, ...]:
    """Pairs of one or several volume nodes and their segmentation; raises ImageError naming what was found instead."""
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise _no_pair(given)
    return tuple(map(_pair_of, given))


def find_pairs(scene, *, predictions: bool = False) -> tuple[Pair, ...]:
    """Each segmentation with the volume it was drawn on: its reference volume, else the only one of the same name.

    Hidden nodes and label maps of volumes that have a segmentation are left out. So are predictions, which nobody
    should train on uncorrected, unless `predictions` asks for them too.
    """
    label_maps = dict.fromkeys(_nodes(scene, "vtkMRMLLabelMapVolumeNode"))
    volumes = {node: _subject(node) for node in _nodes(scene, "vtkMRMLScalarVolumeNode") if node not in label_maps}
    of_subject: dict[str, list] = {}
    for volume, subject in volumes.items():
        of_subject.setdefault(subject, []).append(volume)
    pairs: list[Pair] = []
    taken = set()
    for node in (*_nodes(scene, "vtkMRMLSegmentationNode"), *label_maps):
        reference = node.GetNodeReference(REFERENCE_ROLE)
        found = [reference] if reference in volumes else of_subject.get(_subject(node), ())
        if len(found) == 1 and not (node in label_maps and found[0] in taken):
            pairs.append(Pair(tuple(found), node, "reference" if reference in volumes else "name"))
            taken.update(() if pairs[-1].is_prediction else found)
    return tuple(pair for pair in pairs if predictions or not pair.is_prediction)


def _pair_of(given: Pair | tuple) -> Pair:
    if not isinstance(given, Pair) and not (isinstance(given, (tuple, list)) and len(given) == 2):
        raise _no_pair(given)
    volumes, segmentation = (given.volumes, given.segmentation) if isinstance(given, Pair) else given
    pair = Pair(volumes_of(volumes), segmentation, given.found_by if isinstance(given, Pair) else "")
    require_segments(pair.segmentation)
    return pair


def _no_pair(found: object) -> ImageError:
    return ImageError(
        f"Expected pairs of a volume and its segmentation, found {described(found)}; write a single pair as "
        "[(volume, segmentation)]."
    )


def _labels_of(pairs: Sequence[Pair], segments: Sequence[str] | str | None) -> LabelSet:
    """The labels of all segmentations, or of the segments that are named."""
    chosen = None if segments is None else several(segments, "the name of a segment, or of several")
    owners = [pair.segmentation.GetName() for pair in pairs]
    return labels_from_rows([segment_table(pair.segmentation) for pair in pairs], chosen, owners)


def _is_written(image: CaseArrays, path: Path) -> bool:
    """Whether a file holds the first channel of a case, in the same place; its voxels are read only then."""
    if not image.geometry.same_grid(read_geometry(path)):
        return False
    return np.array_equal(read_image(path).array[0], image.channels[0].astype(np.float32), equal_nan=True)


def _added_id(task: Task, given: str, replace_case: bool) -> str:
    """The id of a case that is added under a given name, or takes the place of one that differs only in capitals."""
    case_id = case_name(given)
    known = next((case.id for case in task.cases if case.id.casefold() == case_id.casefold()), None)
    if known is not None and not replace_case:
        raise TaskError(f"{task.name} has a case {known} already; give another name, or replace it.")
    return known or case_id


def _free_id(task: Task, volumes: Sequence) -> str:
    return case_name(volumes[0].GetName(), [case.id for case in task.cases])


def _case_ids(pairs: Sequence[Pair], given: Sequence[str] | str | None) -> list[str]:
    names = [pair.volumes[0].GetName() for pair in pairs] if given is None else several(given, "names of cases")
    if len(names) != len(pairs):
        raise TaskError(f"Expected {len(pairs)} case names, one per pair, found {len(names)}.")
    return case_names(names)


def _counted(cases: Iterable[CaseArrays], ids: Sequence[str], progress: Progress) -> Iterator[CaseArrays]:
    for done, case in enumerate(cases):
        progress(done, len(ids), f"Writing {ids[done]}")
        yield case
    progress(len(ids), len(ids), "Writing cases")


def _nodes(scene, class_name: str) -> list:
    return [node for node in scene.GetNodes() if node.IsA(class_name) and not node.GetHideFromEditors()]


def _subject(node) -> str:
    """A node's name without the words that say what kind of node it is."""
    return re.sub(r"[\W_]+", " ", _NOT_THE_SUBJECT.sub(" ", node.GetName())).strip().casefold()
