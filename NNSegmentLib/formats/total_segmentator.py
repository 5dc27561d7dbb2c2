"""TotalSegmentator's data sets: a folder a case with ct.nii.gz or mri.nii.gz, and segmentations/CLASS.nii.gz.

Classes become labels in alphabetical order over all cases; a class that a case lacks is empty there. Cases that
meta.csv marks as "test" become test cases with labels; "train" and "val" both train, since folds are drawn later.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from ..cases import repeated
from ..errors import TaskError, some
from ..folders import visible
from ..image import file_ending, read_labels
from ..records import cause_of
from ..segments.names import SegmentRow, labels_from_rows
from .segments import union_of_rows
from .source import SegmentLayer, Segments, Source, SourceCase, image_files, stem

FORMAT = "TotalSegmentator"
_SEGMENTATIONS = "segmentations"
_CHANNELS = {"ct": "CT", "mri": "MR", "mr": "MR"}
"""Names of the image file, and the channel names that select the normalisation."""


def recognises(folder: Path) -> bool:
    """Whether the folder, or a folder in it, holds an image beside a folder of segmentations."""
    return bool(_case_folders(folder))


def read(folder: Path) -> Source:
    """Describe a folder of cases; raises TaskError when none has segmentations."""
    splits = _splits(folder / "meta.csv")
    cases = [_case(path) for path in _case_folders(folder)]
    cases = [replace(case, group=_group(case, splits)) for case in cases]
    if not any(case.group == "Tr" for case in cases):
        cases = [replace(case, group="Tr") if case.segments else case for case in cases]
    endings = {file_ending(case.images[0]) for case in cases}
    return Source(
        folder=folder,
        format=FORMAT,
        channel_names=(" or ".join(sorted({_CHANNELS[stem(case.images[0]).lower()] for case in cases})),),
        labels=_labels(folder, cases),
        file_ending=endings.pop() if len(endings) == 1 else ".nii.gz",
        cases=tuple(cases),
    )


def _labels(folder: Path, cases: list[SourceCase]):
    rows = union_of_rows(cases)
    if not rows:
        raise TaskError(
            f"The cases in {folder} should have files segmentations/CLASS.nii.gz, found none; unpack them first."
        )
    return labels_from_rows([rows])


def _case_folders(folder: Path) -> list[Path]:
    """The folder itself when it is a case, else those in it that are, sorted; unlabelled ones too where others have labels."""
    if _is_case(folder):
        return [folder]
    found = [path for path in visible(folder) if path.is_dir()]
    return [path for path in found if _image(path)] if any(_is_case(path) for path in found) else []


def _is_case(folder: Path) -> bool:
    return (folder / _SEGMENTATIONS).is_dir() and _image(folder) is not None


def _image(folder: Path) -> Path | None:
    by_name = {stem(path).lower(): path for path in image_files(folder)}
    return next((by_name[name] for name in _CHANNELS if name in by_name), None)


def _case(folder: Path) -> SourceCase:
    files = tuple(image_files(folder / _SEGMENTATIONS))
    image = _image(folder)
    if not files:
        return SourceCase(folder.name, (image,), group="Ts")
    names = [stem(path) for path in files]
    if twice := repeated(names):
        raise TaskError(f"{folder / _SEGMENTATIONS} has more than one file of {some(twice)}; keep one of each.")
    rows = tuple(SegmentRow(name, name, None, "", False) for name in names)
    return SourceCase(folder.name, (image,), segments=Segments(files, rows, partial(_layers, files)))


def _layers(files: tuple[Path, ...]) -> Iterator[SegmentLayer]:
    for path in files:
        mask = read_labels(path)
        yield SegmentLayer((mask.array != 0).astype(np.uint8), mask.geometry.ijk_to_ras, ((1, stem(path)),))


def _group(case: SourceCase, splits: Mapping[str, str]) -> str:
    return "Ts" if case.segments is None or splits.get(case.id) == "test" else "Tr"


def _splits(path: Path) -> dict[str, str]:
    """Case → 'train', 'val' or 'test' from meta.csv; empty when there is no such table."""
    if not path.is_file():
        return {}
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise TaskError(
            f"{path} should be a table in UTF-8, but it cannot be read ({cause_of(error)}); mend or delete it."
        ) from error
    header = text.partition("\n")[0]
    rows = csv.DictReader(text.splitlines(), delimiter=max(";,\t", key=header.count))
    return {str(row.get("image_id")): (row.get("split") or "").strip().lower() for row in rows}
