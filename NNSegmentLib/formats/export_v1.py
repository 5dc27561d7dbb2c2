"""A task as an nnU-Net version 1 data set: TaskXXX_Name with .nii.gz volumes and the older dataset.json.

Version 1 reads volumes in .nii.gz only: other file types are rewritten, 2-D images as volumes of one slice (999 mm
thick, nnU-Net's convention). It knows neither regions nor an ignore label in dataset.json.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ..colors import save_label_colors
from ..copying import folder_made_whole
from ..errors import TaskError
from ..folders import DATASET_NAME, LABELS_CSV, Workspace
from ..given import expanded
from ..labels import IGNORE, Label, LabelSet
from ..progress import Progress, silent
from ..records import write_json
from ..segments.overlaps import AND, value_table
from ..task import Task
from . import nnunet_v2
from .build import require_files, write_cases
from .source import Source

ENDING = ".nii.gz"
_TASK_NAME = re.compile(r"^Task\d{3}_.+$")
_NOT_KNOWN = ("overwrite_image_reader_writer", "ignore")


@dataclass(frozen=True)
class ExportedTask:
    """A data set written for another program."""

    folder: Path
    cases: int
    """Training cases."""
    notes: tuple[str, ...] = ()
    """Sentences about what the other format cannot say."""


def export_v1(
    task: Task, output: Path | None, workspace: Workspace, *, workers: int = 2, progress: Progress = silent
) -> ExportedTask:
    """Write the task as TaskXXX_Name into `output`, whole or not at all; the task is not changed.

    Without `output` it goes where version 1 looks: `$nnUNet_raw_data_base/nnUNet_raw_data`, else nnUNet_raw_data in the
    workspace. Label values stay; regions lose their overlap, which the result says. Raises TaskError for a task with an
    ignore label and for a folder that exists, ImageError for damaged files, StorageError.
    """
    _require_no_ignore(task)
    target = _target(task, output, workspace)
    source = nnunet_v2.read(task.folder, task.dataset_json)
    labels = _plain_labels(task.labels)
    source = replace(source, labels=labels, file_ending=ENDING, split_colors=True, only_volumes=True)
    require_files(source)
    with folder_made_whole(target) as building:
        write_cases(source, building, "refuse", workers, progress)
        write_json(building / "dataset.json", _description(task, source))
        save_label_colors(building / LABELS_CSV, labels)
    return ExportedTask(target, source.n_training, _notes(task.labels, labels))


def _description(task: Task, source: Source) -> dict:
    """dataset.json of version 1; its lists leave the channel number out."""
    training, tests = ([case.id for case in source.cases if case.group == group] for group in ("Tr", "Ts"))
    texts = {"name": task.name.partition("_")[2], "description": "", "reference": "", "licence": "", "release": ""}
    return (
        texts
        | {key: value for key, value in source.notes.items() if key not in _NOT_KNOWN}
        | {
            "tensorImageSize": "4D" if len(source.channel_names) > 1 else "3D",
            "modality": {str(n): name for n, name in enumerate(source.channel_names)},
            "labels": {str(label.values[0]): label.name for label in source.labels.labels},
            "numTraining": len(training),
            "numTest": len(tests),
            "training": [{"image": f"./imagesTr/{i}{ENDING}", "label": f"./labelsTr/{i}{ENDING}"} for i in training],
            "test": [f"./imagesTs/{i}{ENDING}" for i in tests],
        }
    )


def _plain_labels(labels: LabelSet) -> LabelSet:
    """One label a value: regions are named after all that hold a value, "liver & tumor"."""
    if not labels.has_regions:
        return labels
    known = {label.name: label for label in labels.foreground}
    names = {value: segments for segments, value in value_table(labels).items()}
    order = list(known)
    found = [label for label in labels.labels if label.is_background]
    for value in labels.foreground_values:
        parts = sorted(names.get(value, ()), key=order.index)
        smallest = known[min(parts, key=lambda name: len(known[name].values))]
        found.append(replace(smallest, name=AND.join(parts), values=(value,)))
    return LabelSet(_distinct(found))


def _distinct(labels: list[Label]) -> tuple[Label, ...]:
    """The labels, a name that occurs twice with its value behind it."""
    names = [label.name for label in labels]
    return tuple(
        replace(label, name=f"{label.name} ({label.values[0]})") if label.name in names[:n] else label
        for n, label in enumerate(labels)
    )


def _notes(before: LabelSet, after: LabelSet) -> tuple[str, ...]:
    if not before.has_regions:
        return ()
    values = ", ".join(f"{label.values[0]} {label.name}" for label in after.foreground)
    return (
        f"nnU-Net v1 knows no regions in dataset.json, so every value became a label of its own ({values}); to train "
        "regions there, use one of its region-based trainers.",
    )


def _require_no_ignore(task: Task) -> None:
    if task.labels.ignore_value is not None:
        raise TaskError(
            f'{task.name} has the label "{IGNORE}", which nnU-Net v1 would learn as a structure; complete the '
            "annotation, or train the task here or in nnU-Net v2."
        )


def _target(task: Task, output: Path | None, workspace: Workspace) -> Path:
    number, name = DATASET_NAME.match(task.name).groups()
    folder = _default_folder(workspace, os.environ) if output is None else expanded(output).absolute()
    target = folder if _TASK_NAME.match(folder.name) else folder / f"Task{number}_{name}"
    if target.exists():
        raise TaskError(f"{target} exists already; delete it, or give another folder.")
    return target


def _default_folder(workspace: Workspace, environment: Mapping[str, str]) -> Path:
    base = environment.get("nnUNet_raw_data_base")
    return (expanded(base).absolute() if base else workspace.raw.parent) / "nnUNet_raw_data"
