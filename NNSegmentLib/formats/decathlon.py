"""Medical Segmentation Decathlon folders: TaskNN_Name with one NIfTI file a case, channels on a fourth axis."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..errors import TaskError
from ..image import file_ending
from .source import Source, SourceCase, channel_names, image_files, stem, value_to_name

_REPLACED_KEYS = ("labels", "modality", "channel_names", "training", "test", "numTraining", "file_ending")


def recognises(folder: Path, values: Mapping) -> bool:
    """Whether dataset.json is the Decathlon's."""
    return "modality" in values and "labels" in values


def read(folder: Path, values: Mapping) -> Source:
    """Describe a Decathlon folder; raises TaskError."""
    cases = training_cases(folder, values)
    tests = [SourceCase(stem(path), (path,), group="Ts") for path in image_files(folder / "imagesTs")]
    return Source(
        folder=folder,
        format="Medical Segmentation Decathlon",
        channel_names=channel_names(values["modality"], folder),
        labels=value_to_name(values["labels"], folder),
        file_ending=file_ending(cases[0].images[0]),
        cases=(*cases, *tests),
        notes={key: value for key, value in values.items() if key not in _REPLACED_KEYS},
    )


def training_cases(folder: Path, values: Mapping) -> list[SourceCase]:
    """The cases listed under `training`, else the files of imagesTr; raises TaskError when there is none."""
    if listed := values.get("training"):
        return [_listed(folder, entry) for entry in (listed if isinstance(listed, list) else [listed])]
    found = [
        SourceCase(stem(path), (path,), folder / "labelsTr" / path.name) for path in image_files(folder / "imagesTr")
    ]
    if not found:
        raise TaskError(
            f"{folder / 'imagesTr'} should hold the training images, found none; unpack the data set again."
        )
    return found


def _listed(folder: Path, entry: object) -> SourceCase:
    files = [entry.get("image"), entry.get("label", "")] if isinstance(entry, Mapping) else [None]
    if not all(isinstance(file, str) for file in files):
        raise TaskError(
            f'"training" in {folder / "dataset.json"} should list {{"image": "…", "label": "…"}}, found {entry!r:.60}; '
            "correct it."
        )
    image = folder / entry["image"]
    labels = folder / entry.get("label", f"labelsTr/{image.name}")
    return SourceCase(stem(image), (image,), labels)
