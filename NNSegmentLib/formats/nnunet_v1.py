"""nnU-Net version 1 folders: TaskXXX_Name, channels as CASE_0000.nii.gz, cases listed in dataset.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ..colors import load_label_colors, with_colors
from ..errors import TaskError
from ..folders import LABELS_CSV
from ..image import file_ending
from ..labels import LabelSet
from ..task import find_images, find_labels
from .decathlon import training_cases
from .source import Source, SourceCase, channel_names, value_to_name

_REPLACED_KEYS = ("labels", "modality", "training", "test", "numTraining", "numTest", "tensorImageSize", "file_ending")
_OTHER_GROUPS = ("Ts", "Val")


def recognises(folder: Path, values: Mapping) -> bool:
    """Whether dataset.json is the older one and the images carry channel numbers the list does not show."""
    if "modality" not in values or "labels" not in values:
        return False
    first = training_cases(folder, values)[0]
    return not first.images[0].is_file() and bool(_channels(folder, first))


def read(folder: Path, values: Mapping) -> Source:
    """Describe a version-1 folder; raises TaskError."""
    listed = training_cases(folder, values)
    ending = file_ending(listed[0].images[0])
    images = find_images(folder / "imagesTr", ending)
    lacking = [case.id for case in listed if case.id not in images]
    if lacking:
        raise TaskError(
            f"{folder / 'imagesTr'} lacks the images of {lacking[0]} ({len(lacking)} cases lack theirs); copy them there."
        )
    return Source(
        folder=folder,
        format="nnU-Net v1",
        channel_names=channel_names(values["modality"], folder),
        labels=_colored(value_to_name(values["labels"], folder), folder),
        file_ending=ending,
        cases=(*(replace(case, images=images[case.id]) for case in listed), *other_cases(folder, ending)),
        notes={key: value for key, value in values.items() if key not in _REPLACED_KEYS},
    )


def other_cases(folder: Path, ending: str) -> list[SourceCase]:
    """Test and validation cases (imagesTs, imagesVal), with labels where labelsTs or labelsVal has them."""
    return [
        SourceCase(case_id, files, labels[case_id] if labels[case_id].is_file() else None, group)
        for group in _OTHER_GROUPS
        for images in [find_images(folder / f"images{group}", ending)]
        for labels in [find_labels(folder / f"labels{group}", images, ending)]
        for case_id, files in images.items()
    ]


def _colored(labels: LabelSet, folder: Path) -> LabelSet:
    """The labels with the colours of a labels.csv beside them, which our own version-1 folders have."""
    path = folder / LABELS_CSV
    return with_colors(labels, load_label_colors(path)) if path.is_file() else labels


def _channels(folder: Path, case: SourceCase) -> tuple[Path, ...]:
    ending = file_ending(case.images[0])
    return find_images(folder / "imagesTr", ending).get(case.id, ())
