"""nnU-Net version 2 folders: DatasetXXX_Name; the layout of our own tasks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..folders import LABELS_CSV
from ..task import load_task
from .nnunet_v1 import other_cases
from .source import Source, SourceCase

_REPLACED_KEYS = (
    "channel_names",
    "modality",
    "labels",
    "regions_class_order",
    "numTraining",
    "file_ending",
    "dataset",
)
_COMPANIONS = ("splits_final.json", LABELS_CSV)


def recognises(folder: Path, values: Mapping) -> bool:
    """Whether dataset.json is version 2's."""
    return "file_ending" in values and ("channel_names" in values or "training" not in values)


def read(folder: Path, values: Mapping) -> Source:
    """Describe a version-2 folder, its `dataset` entry included; raises TaskError."""
    task = load_task(folder)
    companions = (folder / name for name in _COMPANIONS)
    return Source(
        folder=folder,
        format="nnU-Net v2",
        channel_names=tuple(channel.name for channel in task.channels),
        labels=task.labels,
        file_ending=task.file_ending,
        cases=(
            *(SourceCase(case.id, case.images, case.labels) for case in task.cases),
            *other_cases(folder, task.file_ending),
        ),
        notes={key: value for key, value in values.items() if key not in _REPLACED_KEYS},
        companions=tuple(path for path in companions if path.is_file()),
    )
