"""DICOM SEG objects: which segments they hold, and where each of their frames lies.

Source: DICOM part 3, A.51 and C.8.20 (Segmentation IOD; binary, fractional and label map). Frames keep their own
place in the world; nothing is taken from their order. Fractional segments count where they are at least one half.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ..errors import ImageError, TaskError
from ..labels import BACKGROUND
from ..segments.names import SegmentRow
from .dicom_series import Plane, Series, head, is_dicom, plane_matrix, planes_of, same_plane, usable_attributes
from .source import SegmentLayer, Segments

SOP_CLASSES = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
"""Segmentation Storage, Label Map Segmentation Storage."""
_LABELMAP = "LABELMAP"
_EVEN = 0.1
"""Frames may lie this part of a step beside their place."""
_D65 = (0.950456, 1.0, 1.088754)
_XYZ_TO_SRGB = np.array(
    [[3.2404542, -1.5371385, -0.4985314], [-0.9692660, 1.8760108, 0.0415560], [0.0556434, -0.2040259, 1.0572252]]
)


@dataclass(frozen=True)
class Reference:
    """What a segmentation says it was drawn on."""

    series: tuple[str, ...]
    instances: frozenset[str]
    frame_of_reference: str


def is_segmentation(path: Path) -> bool:
    """Whether a file is a DICOM SEG object, from its first bytes."""
    return is_dicom(path) and any(f"{uid}\0".encode() in head(path) for uid in SOP_CLASSES)


def reference(header) -> Reference:
    """The series and instances a segmentation refers to, as a whole and frame by frame."""
    listed = header.get("ReferencedSeriesSequence") or ()
    instances = {
        str(item.ReferencedSOPInstanceUID)
        for series in listed
        for item in series.get("ReferencedInstanceSequence") or ()
    }
    for frame in header.get("PerFrameFunctionalGroupsSequence") or ():
        for derivation in frame.get("DerivationImageSequence") or ():
            instances |= {str(i.ReferencedSOPInstanceUID) for i in derivation.get("SourceImageSequence") or ()}
    series = tuple(str(series.SeriesInstanceUID) for series in listed)
    return Reference(series, frozenset(instances), str(header.get("FrameOfReferenceUID", "")))


def read(path: Path, header, series: Series) -> Segments:
    """Describe a segmentation of a series; raises TaskError when its frames do not lie on one grid."""
    with usable_attributes(path):
        rows = tuple(_row(path, segment) for segment in header.get("SegmentSequence") or ())
    if not rows:
        raise TaskError(f"{path} should describe at least one segment, found none; leave the file out.")
    planes = planes_of(path, header)
    if not planes:
        raise TaskError(
            f"{path} does not say where its frames lie in the patient; only such segmentations can be used."
        )
    step = _step(path, planes, series)
    return Segments((path,), rows, partial(_layers, path, planes, step))


def is_background(row: SegmentRow) -> bool:
    """Whether a segment is what label maps call their background."""
    return row.name.casefold() == BACKGROUND


def srgb(lab: Sequence[int]) -> tuple[int, int, int]:
    """The screen colour, 0 to 255, of RecommendedDisplayCIELabValue (three numbers of 16 bits, white point D65)."""
    lightness, a, b = lab[0] / 65535 * 100, lab[1] / 65535 * 255 - 128, lab[2] / 65535 * 255 - 128
    y = (lightness + 16) / 116
    roots = np.array([y + a / 500, y, y - b / 200])
    xyz = np.where(roots**3 > 0.008856, roots**3, (roots - 16 / 116) / 7.787) * _D65
    linear = np.clip(_XYZ_TO_SRGB @ xyz, 0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return tuple(int(part) for part in np.rint(255 * encoded))


def _row(path: Path, segment) -> SegmentRow:
    number = int(segment.SegmentNumber)
    name = str(segment.get("SegmentLabel") or segment.get("SegmentDescription") or f"segment {number}")
    lab = segment.get("RecommendedDisplayCIELabValue")
    color = srgb([int(v) for v in lab]) if lab is not None and len(lab) == 3 else None
    return SegmentRow(_row_id(path, number), name, color, _terminology(segment), False, number)


def _row_id(path: Path, number: int) -> str:
    return f"{path}#{number}"


def _terminology(segment) -> str:
    """Slicer's terminology entry: context, category, type, modifier, context, region, region modifier."""
    category = _item(segment, "SegmentedPropertyCategoryCodeSequence")
    kind = _item(segment, "SegmentedPropertyTypeCodeSequence")
    region = _item(segment, "AnatomicRegionSequence")
    if category is None or kind is None:
        return ""
    modifier = _item(kind, "SegmentedPropertyTypeModifierCodeSequence")
    region_modifier = _item(region, "AnatomicRegionModifierSequence") if region is not None else None
    return "~".join(("", _code(category), _code(kind), _code(modifier), "", _code(region), _code(region_modifier)))


def _item(place, keyword: str):
    found = place.get(keyword)
    return found[0] if found else None


def _code(item) -> str:
    if item is None:
        return "^^"
    value = item.get("CodeValue") or item.get("LongCodeValue") or item.get("URNCodeValue") or ""
    return f"{item.get('CodingSchemeDesignator', '')}^{value}^{item.get('CodeMeaning', '')}"


def _step(path: Path, planes: Sequence[Plane], series: Series) -> np.ndarray:
    """From one frame's place to the next (LPS, mm): that of the series where the frames lie on its planes."""
    if not all(same_plane(planes[0], plane) for plane in planes):
        raise TaskError(f"The frames of {path} should be parallel and of one size, found several; save it again.")
    if _lies_on(planes, series):
        return np.subtract(series.planes[-1].position, series.planes[0].position) / (len(series.planes) - 1)
    low, high = min(planes, key=_height), max(planes, key=_height)
    heights = np.unique(np.round([plane.height_mm for plane in planes], 3))
    for step in (planes[0].thickness_mm, *([np.diff(heights).min()] if len(heights) > 1 else ())):
        counts = (heights - heights[0]) / step
        if np.abs(counts - np.rint(counts)).max() < _EVEN:
            n = round(counts[-1])
            return np.subtract(high.position, low.position) / n if n else planes[0].normal * step
    raise TaskError(f"The frames of {path} should be evenly spaced like slices, found other gaps; save it again.")


def _lies_on(planes: Sequence[Plane], series: Series) -> bool:
    """Whether every frame lies on a plane of the series, pixel by pixel."""
    if len(series.planes) < 2 or not same_plane(planes[0], series.planes[0]):
        return False
    places = np.array([plane.position for plane in series.planes])
    tolerance = _EVEN * np.linalg.norm(places[-1] - places[0]) / (len(places) - 1)
    return all(np.linalg.norm(places - plane.position, axis=1).min() < tolerance for plane in planes)


def _height(plane: Plane) -> float:
    return plane.height_mm


def _layers(path: Path, planes: Sequence[Plane], step: np.ndarray) -> Iterator[SegmentLayer]:
    with usable_attributes(path):
        dataset, pixels = _pixels(path)
        frames_of = {} if dataset.SegmentationType == _LABELMAP else _frames_of(dataset, planes)
    if not frames_of:
        numbers = [int(segment.SegmentNumber) for segment in dataset.SegmentSequence]
        yield _layer(planes, range(len(planes)), step, partial(_codes, pixels, numbers), _ids(path, numbers))
        return
    for number, frames in frames_of.items():
        yield _layer(planes, frames, step, pixels, ((1, _row_id(path, number)),))


def _frames_of(dataset, planes: Sequence[Plane]) -> dict[int, list[int]]:
    """Segment number → its frames."""
    found: dict[int, list[int]] = {}
    shared = dataset.get("SharedFunctionalGroupsSequence") or [{}]
    for n, frame in zip(range(len(planes)), dataset.PerFrameFunctionalGroupsSequence, strict=True):
        named = frame.get("SegmentIdentificationSequence") or shared[0].get("SegmentIdentificationSequence")
        if not named:
            raise TaskError(
                f"Frame {n + 1} of {planes[0].file} does not say which segment it belongs to; save it again."
            )
        found.setdefault(int(named[0].ReferencedSegmentNumber), []).append(n)
    return found


def _ids(path: Path, numbers: Sequence[int]) -> tuple[tuple[int, str], ...]:
    return tuple((code, _row_id(path, number)) for code, number in enumerate(numbers, 1))


def _codes(pixels: Callable[[int], np.ndarray], numbers: Sequence[int], frame: int) -> np.ndarray:
    """A frame of a label map with the n-th segment as n, everything else (background, padding) as 0."""
    found = pixels(frame)
    codes = np.zeros(max(int(found.max()), *numbers) + 1, np.uint16)
    codes[list(numbers)] = np.arange(1, len(numbers) + 1)
    return codes[found]


def _layer(planes, frames: Sequence[int], step: np.ndarray, pixels, ids) -> SegmentLayer:
    """The given frames as a volume from the lowest to the highest; places without a frame are empty."""
    lowest = min((planes[n] for n in frames), key=_height)
    length = float(np.dot(step, lowest.normal))
    places = [round((planes[n].height_mm - lowest.height_mm) / length) for n in frames]
    array = np.zeros((max(places) + 1, *lowest.shape), np.uint16)
    for place, frame in zip(places, frames, strict=True):
        array[place] = np.maximum(array[place], pixels(frame))
    return SegmentLayer(array, plane_matrix(lowest, step), ids)


def _pixels(path: Path) -> tuple[object, Callable[[int], np.ndarray]]:
    """The parsed file, and a function from a frame's number to its values (Y, X): 0 and 1, or segment numbers."""
    import pydicom

    try:
        dataset = pydicom.dcmread(path)
        shape, bits = (int(dataset.Rows), int(dataset.Columns)), int(dataset.BitsAllocated)
        if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
            frames = dataset.pixel_array.reshape(-1, *shape)
            decoded: Callable[[int], np.ndarray] = frames.__getitem__
        else:
            decoded = partial(_unpacked, dataset.PixelData, shape, bits)
            decoded(int(dataset.get("NumberOfFrames", 1)) - 1)
    except (pydicom.errors.InvalidDicomError, AttributeError, EOFError, ValueError, RuntimeError) as error:
        raise ImageError(f"The frames of {path} cannot be read ({error}); the file may be damaged.") from error
    if dataset.SegmentationType == "FRACTIONAL":
        half = int(dataset.MaximumFractionalValue) / 2
        return dataset, lambda frame: (decoded(frame) >= half).astype(np.uint8)
    return dataset, decoded


def _unpacked(data: bytes, shape: tuple[int, int], bits: int, frame: int) -> np.ndarray:
    """One frame of uncompressed pixel data; frames of single bits follow each other without filling up a byte."""
    n = shape[0] * shape[1]
    if bits > 1:
        size = n * bits // 8
        return np.frombuffer(data[frame * size : (frame + 1) * size], f"<u{bits // 8}").reshape(shape)
    first, last = frame * n // 8, -(-(frame + 1) * n // 8)
    values = np.unpackbits(np.frombuffer(data[first:last], np.uint8), bitorder="little")
    return values[frame * n - 8 * first :][:n].reshape(shape)
