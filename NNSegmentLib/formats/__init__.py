"""From a folder of images to a task, whatever system wrote it; what lies in the folder tells which one it was.

MSD Decathlon, nnU-Net v1 and v2 (dataset.json), TotalSegmentator, MONAI Label, DICOM series with DICOM SEG, and plain
pairs of images and labels, .seg.nrrd of 3D Slicer included.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from ..errors import TaskError
from ..folders import Workspace
from ..given import expanded
from ..progress import Progress, silent
from ..records import kind_of, read_json
from ..task import Task, load_task
from . import decathlon, dicom, monai_label, nnunet_v1, nnunet_v2, pairs, total_segmentator
from .build import build_task
from .source import Source, target_name


def convert(
    source: Path | str,
    workspace: Workspace,
    *,
    labels: Path | str | None = None,
    id: int | None = None,  # noqa: A002 (the field's word for a data set's number)
    name: str | None = None,
    channels: Sequence[str] | None = None,
    in_place: bool = False,
    overlaps: str = "order",
    workers: int = 2,
    progress: Progress = silent,
) -> Task:
    """Make a task in the workspace from a folder in any known format; the source is never changed.

    `labels` names the label folder when images and labels are two plain folders. Number and name come from the
    source's own name (Task04_Hippocampus, Dataset004_Hippocampus) unless given; else the next free number from 501.
    `channels` renames the channels, which selects their normalisation ('CT', …). With `in_place` no image is copied:
    the task's dataset.json points at the source files. The task appears whole or not at all.
    Named segments may overlap: with `overlaps="order"` the later label wins and cases.json says where, with "regions"
    they become regions (beyond slips of one percent of the smaller), with "refuse" the case is named in a TaskError.
    Raises TaskError and ImageError for unusable input, StorageError when the workspace cannot be written.
    """
    folder = _existing_folder(Path(source))
    if in_place and folder.parent == workspace.raw.absolute() and (folder / "dataset.json").is_file():
        return load_task(folder)
    name_of_task = partial(target_name, folder, workspace, id, name)
    name_of_task()  # a number that is taken is told before anything is read
    found = read_source(folder, Path(labels) if labels else None, workers, progress)
    if channels:
        found = found.with_channel_names(tuple(channels))
    options = {"overlaps": overlaps, "in_place": in_place, "workers": workers, "progress": progress}
    return load_task(build_task(found, workspace.raw, name_of_task, **options))


def read_source(folder: Path, labels: Path | None = None, workers: int = 2, progress: Progress = silent) -> Source:
    """What a folder holds, whatever its format; raises TaskError when it is none of those known."""
    if labels is None and (folder / "dataset.json").is_file():
        values = read_json(folder / "dataset.json")
        if not isinstance(values, dict):
            raise TaskError(
                f"dataset.json in {folder} should be a JSON object, found {kind_of(values)}; restore the file."
            )
        for format_ in (nnunet_v2, nnunet_v1, decathlon):
            if format_.recognises(folder, values):
                return format_.read(folder, values)
        raise TaskError(
            f"dataset.json in {folder} should hold channel_names and file_ending (nnU-Net v2) or modality and training "
            f"(nnU-Net v1, Decathlon), found {', '.join(values) or 'nothing'}."
        )
    if labels is None:
        if monai_label.recognises(folder):
            return monai_label.read(folder, workers, progress)
        if total_segmentator.recognises(folder):
            return total_segmentator.read(folder)
        if not pairs.recognises(folder) and dicom.recognises(folder):
            return dicom.read(folder, workers, progress)
    return pairs.read(folder, labels, workers, progress)


def _existing_folder(path: Path) -> Path:
    path = expanded(path).absolute()
    if path.name == "dataset.json":
        path = path.parent
    if path.is_file():
        raise TaskError(f"Expected a folder of images, found the file {path}; unpack archives first.")
    if not path.is_dir():
        raise TaskError(f"Expected a folder of images at {path}, found nothing there.")
    return path
