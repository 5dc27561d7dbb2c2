"""Slicer's segmentation files (.seg.nrrd): one or several layers of label values, and what each segment is called.

The file's own origin already says where the voxels lie, also when they are cropped to what the segments fill
(`Segmentation_ReferenceImageExtentOffset` tells the same once more and is not needed). A file of a single voxel holds
segments without voxels. Source of the fields: Slicer's developer guide, "Segmentation labelmap file format".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ..errors import TaskError
from ..image import read_array, read_header, whole_numbers
from ..image_files.refusals import unreadable
from ..segments.names import SegmentRow
from .source import SegmentLayer, Segments

_ENDING = ".nrrd"
_FIELD = re.compile(r"^Segment(\d+)_(\w+)$")
_TERMINOLOGY = "TerminologyEntry"
_FRACTIONAL = "Fractional labelmap"


@dataclass(frozen=True)
class _Place:
    """Where one segment lies in the file."""

    id: str
    layer: int
    value: int


def is_segmentation(path: Path) -> bool:
    """Whether a .nrrd file names its segments."""
    return path.name.lower().endswith(_ENDING) and any(_FIELD.match(key) for key in _fields(path))


def read(path: Path) -> Segments:
    """Describe a segmentation file from its header; raises ImageError when it is damaged, TaskError when it is fractional."""
    fields = _fields(path)
    _require_binary(path, fields)
    segments = _segments(fields)
    places = [_place(path, number, own) for number, own in segments.items()]
    rows = tuple(_row(place.id, own) for place, own in zip(places, segments.values(), strict=True))
    return Segments((path,), rows, partial(_layers, path, tuple(places)))


def _layers(path: Path, places: tuple[_Place, ...]) -> Iterator[SegmentLayer]:
    layers, geometry = read_array(path)
    if layers[0].size == 1:
        return
    for number, layer in enumerate(layers):
        ids = tuple((place.value, place.id) for place in places if place.layer == number)
        if ids:
            yield SegmentLayer(_labels(layer, path), geometry.ijk_to_ras, ids)


def _labels(layer: np.ndarray, path: Path) -> np.ndarray:
    labels = whole_numbers(layer, path)
    if labels.min() < 0:
        raise TaskError(f"{path} should hold label values from 0 on, found {labels.min()}; save it again in Slicer.")
    return labels


def _fields(path: Path) -> dict[str, str]:
    """The custom fields of the header."""
    try:
        header = read_header(path)
    except RuntimeError as error:
        raise unreadable(path) from error
    return {key: header.GetMetaData(key) for key in header.GetMetaDataKeys() if key.startswith("Segment")}


def _segments(fields: Mapping[str, str]) -> dict[int, dict[str, str]]:
    """Number of a segment → its fields, in the order of the numbers."""
    found: dict[int, dict[str, str]] = {}
    for key, value in fields.items():
        match = _FIELD.match(key)
        if match:
            found.setdefault(int(match[1]), {})[match[2]] = value
    return {number: found[number] for number in sorted(found)}


def _place(path: Path, number: int, own: Mapping[str, str]) -> _Place:
    """Files from before layers had one binary volume a segment."""
    try:
        layer = int(own.get("Layer", number if "LabelValue" not in own else 0))
        return _Place(own.get("ID", f"Segment{number}"), layer, int(own.get("LabelValue", 1)))
    except ValueError as error:
        found = " and ".join(repr(own[key]) for key in ("Layer", "LabelValue") if key in own)
        raise TaskError(
            f"Layer and LabelValue of segment {number} in {path} should be whole numbers, found {found:.60}; save it again "
            "in Slicer."
        ) from error


def _row(segment_id: str, own: Mapping[str, str]) -> SegmentRow:
    return SegmentRow(segment_id, own.get("Name") or segment_id, _color(own), _terminology(own.get("Tags", "")), False)


def _color(own: Mapping[str, str]) -> tuple[int, int, int] | None:
    """RGB from three numbers between 0 and 1; None when there are not three."""
    parts = re.findall(r"[\d.]+(?:[eE][-+]?\d+)?", own.get("Color", ""))
    return tuple(min(255, round(255 * float(part))) for part in parts) if len(parts) == 3 else None


def _terminology(tags: str) -> str:
    """The terminology entry of 'Name:value|Name:value|'."""
    pairs = (tag.partition(":") for tag in tags.split("|"))
    return next((value for name, _, value in pairs if name == _TERMINOLOGY), "")


def _require_binary(path: Path, fields: Mapping[str, str]) -> None:
    source = fields.get("Segmentation_SourceRepresentation") or fields.get("Segmentation_MasterRepresentation", "")
    if source == _FRACTIONAL:
        raise TaskError(
            f"{path} holds fractional segments, expected binary ones; make Binary labelmap the source representation "
            "in Slicer's Segmentations module and save it again."
        )
