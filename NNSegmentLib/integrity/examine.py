"""One pass over the files of one case: each is read once, reduced to a few facts, and let go."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import ImageError
from ..geometry import Geometry
from ..grids.comparison import ELSEWHERE, NOISE, SAME, compare_grids
from ..image import (
    FLAT_ENDINGS,
    PLANE_ENDINGS,
    TIFF_ENDINGS,
    LabelMap,
    file_ending,
    read_array,
    read_label_array,
    whole_numbers,
)
from ..image_files.tiff import unused_spacing
from ..labels import LARGEST_VALUE
from ..task import Case, Task
from .findings import ERROR, LABEL_DIRECTION, LABEL_GRID, LABEL_VALUES, WARNING, Finding
from .grids import described, foreground_inside, in_words
from .headers import place_finding


@dataclass(frozen=True)
class CaseReport:
    """What one case shows by itself."""

    case_id: str
    findings: tuple[Finding, ...]
    values: frozenset[int] | None
    """The label values present; None when the labels cannot be read."""
    digest: str
    """Equal for equal voxels in all channels; empty when an image cannot be read."""


@dataclass(frozen=True)
class _ImageFacts:
    path: Path
    geometry: Geometry
    lows: tuple[float, ...]
    """Smallest value of each channel; NaN when one is."""
    highs: tuple[float, ...]
    digest: str


def examine_case(task: Task, case: Case) -> CaseReport:
    """Read every file of a case once and report; problems become findings, never exceptions."""
    findings = list(_missing_channels(task, case))
    images, unreadable = _read_images(case)
    findings += unreadable
    findings += _channel_findings(task, case, images, complete=not findings)
    grid = images[0].geometry if images else None
    values, label_findings = _examine_labels(task, case, grid)
    digest = "" if unreadable else " ".join(image.digest for image in images)
    return CaseReport(case.id, (*findings, *label_findings), values, digest)


def present_values(labels: np.ndarray) -> frozenset[int]:
    """The distinct values of an integer label map."""
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high > LARGEST_VALUE:
        return frozenset(int(value) for value in np.unique(labels))
    seen = np.zeros(high + 1, bool)
    seen[labels.ravel()] = True
    return frozenset(int(value) for value in np.flatnonzero(seen))


def _missing_channels(task: Task, case: Case) -> Iterator[Finding]:
    expected = len(task.channels)
    if len(case.images) == 1 and file_ending(case.images[0]) in (*PLANE_ENDINGS, ".tif"):
        return  # one colour picture may hold all channels
    if len(case.images) == expected and all(path.is_file() for path in case.images):
        return
    gone = [path.name for path in case.images if not path.is_file()]
    names = {path.name for path in case.images}
    gone += [name for name in _channel_names(task, case) if len(case.images) < expected and name not in names]
    yield Finding(
        ERROR,
        case.id,
        "channel files",
        f"{expected} files, one per channel",
        f"{len(case.images)}, without {', '.join(gone)}" if gone else f"{len(case.images)} files",
        "add the missing file, take out the surplus one, or remove the case",
    )


def _channel_names(task: Task, case: Case) -> list[str]:
    return [f"{case.id}_{n:04d}{task.file_ending}" for n in range(len(task.channels))]


def _read_images(case: Case) -> tuple[list[_ImageFacts], list[Finding]]:
    images, findings = [], []
    for path in case.images:
        if not path.is_file():
            continue
        try:
            images.append(_image_facts(path))
        except ImageError as error:
            findings.append(_unreadable(case, path, error))
    return images, findings


def _image_facts(path: Path) -> _ImageFacts:
    array, geometry = read_array(path)
    return _ImageFacts(
        path,
        geometry,
        tuple(float(channel.min()) for channel in array),
        tuple(float(channel.max()) for channel in array),
        hashlib.blake2b(np.ascontiguousarray(array), digest_size=16).hexdigest(),
    )


def _unreadable(case: Case, path: Path, error: ImageError) -> Finding:
    return Finding(
        ERROR,
        case.id,
        "readable files",
        f"a readable image {path.name}",
        str(error).rstrip("."),
        "replace the file or the case",
    )


def _channel_findings(task: Task, case: Case, images: list[_ImageFacts], complete: bool) -> Iterator[Finding]:
    n_channels = sum(len(image.lows) for image in images)
    if complete and n_channels != len(task.channels):
        yield Finding(
            ERROR,
            case.id,
            "channels",
            f"{len(task.channels)} channels as dataset.json names them",
            f"{n_channels} in {', '.join(image.path.name for image in images)}",
            "run 'nnsegment convert' to split files that hold several channels, or correct channel_names",
        )
    for image in images:
        yield from _value_findings(case, image)
        yield from place_finding(case, image.path, image.geometry)
    if images and file_ending(images[0].path) in TIFF_ENDINGS:
        yield from _spacing_findings(case, images[0].path)
    for image in images[1:]:
        yield from _grid_finding(case, images[0], image)


def _spacing_findings(case: Case, path: Path) -> Iterator[Finding]:
    spacing = unused_spacing(path)
    if spacing:
        yield Finding(
            WARNING,
            case.id,
            "voxel size",
            f"a file {case.id}.json beside {path.name} with its voxel size",
            f"the size {in_words(spacing)} in its header alone, which nnU-Net does not read: it takes 1 × 1 × 1",
            f'write {case.id}.json with {{"spacing": {list(spacing)}}} into imagesTr and labelsTr',
        )


def _value_findings(case: Case, image: _ImageFacts) -> Iterator[Finding]:
    name = image.path.name
    if not np.isfinite((*image.lows, *image.highs)).all():
        yield Finding(
            ERROR,
            case.id,
            "finite values",
            f"numbers everywhere in {name}",
            "NaN or infinite values",
            "replace them in the image (for example by 0 or the minimum) and save it again",
        )
    elif any(low == high for low, high in zip(image.lows, image.highs, strict=True)):
        yield Finding(
            WARNING,
            case.id,
            "constant image",
            f"varying values in {name}",
            _constants(image),
            "look at the image; an empty channel teaches nothing",
        )


def _constants(image: _ImageFacts) -> str:
    """The value of each channel that has only one, with its number where there are several."""
    pairs = enumerate(zip(image.lows, image.highs, strict=True))
    single = [(n, low) for n, (low, high) in pairs if low == high]
    if len(image.lows) == 1:
        return f"only {single[0][1]:g}"
    return ", ".join(f"only {value:g} in channel {n}" for n, value in single)


def _grid_finding(case: Case, first: _ImageFacts, image: _ImageFacts) -> Iterator[Finding]:
    relation = compare_grids(first.geometry, image.geometry)
    if relation != SAME:
        yield Finding(
            ERROR if relation == ELSEWHERE else WARNING,
            case.id,
            "channel grid",
            f"{described(first.geometry)} as in {first.path.name}",
            f"{described(image.geometry)} in {image.path.name}"
            + (f", corners up to {_distance(first, image)} apart" if _same_shape(first, image) else ""),
            "resample all channels of the case onto one grid",
        )


def _same_shape(first: _ImageFacts, second: _ImageFacts) -> bool:
    return first.geometry.shape == second.geometry.shape


def _distance(first: _ImageFacts, second: _ImageFacts) -> str:
    return f"{first.geometry.corner_distance_mm(second.geometry):.3g} mm"


def _examine_labels(task: Task, case: Case, grid: Geometry | None) -> tuple[frozenset[int] | None, list[Finding]]:
    if case.labels is None or not case.labels.is_file():
        name = case.labels.name if case.labels else f"{case.id}{task.file_ending}"
        return None, [
            Finding(ERROR, case.id, "label file", f"the file {name}", "none", "add it or remove the case's images")
        ]
    try:
        array, geometry = read_label_array(case.labels)
    except ImageError as error:
        return None, [_unreadable(case, case.labels, error)]
    if len(array) != 1:
        return None, [_labels_wrong(case, "one label map", f"{len(array)} channels", "save it as a single label map")]
    try:
        labels = LabelMap(whole_numbers(array[0], case.labels), geometry)
    except ImageError:
        return None, [
            _labels_wrong(case, "whole numbers", "fractions, NaN or infinite values", "export it as a label map")
        ]
    values = present_values(labels.array)
    places = (*place_finding(case, case.labels, geometry), *_placement_findings(case, labels, grid))
    return values, [*_content_findings(task, case, values), *places]


def _labels_wrong(case: Case, expected: str, found: str, advice: str) -> Finding:
    return Finding(ERROR, case.id, LABEL_VALUES, expected, found, advice)


def _content_findings(task: Task, case: Case, values: frozenset[int]) -> Iterator[Finding]:
    if min(values) < 0:
        negative = ", ".join(str(v) for v in sorted(values) if v < 0)
        yield _labels_wrong(case, "values from 0 on", negative, "renumber the labels of this file")
    if not values - {0, task.labels.ignore_value}:
        yield Finding(
            WARNING,
            case.id,
            "empty labels",
            "at least one labelled voxel",
            "only background",
            "segment the case, or keep it if the structures are truly absent",
        )


def _placement_findings(case: Case, labels: LabelMap, grid: Geometry | None) -> Iterator[Finding]:
    relation = SAME if grid is None else compare_grids(grid, labels.geometry)
    is_flat = [file_ending(path) in FLAT_ENDINGS for path in (case.images[0], case.labels)]
    if relation == SAME or (any(is_flat) and not all(is_flat) and grid.shape == labels.geometry.shape):
        return  # only one of the two says where it lies
    by_position = not any(is_flat)
    fixable = by_position and (relation == NOISE or foreground_inside(labels, grid))
    apart = f", corners {grid.corner_distance_mm(labels.geometry):.3g} mm apart" * (grid.shape == labels.geometry.shape)
    yield Finding(
        WARNING if relation == NOISE else ERROR,
        case.id,
        LABEL_DIRECTION if relation == NOISE else LABEL_GRID,
        f"the image's grid, {described(grid)}",
        f"{described(labels.geometry)}{apart}",
        _placement_advice(relation, fixable) if by_position else _size_advice(grid.shape == labels.geometry.shape),
        fixable,
    )


def _placement_advice(relation: str, fixable: bool) -> str:
    if relation == NOISE:
        return "'nnsegment check --fix' gives the labels the image's exact position"
    if fixable:
        return "look at both; 'nnsegment check --fix' resamples the labels onto the image"
    return "the labels lie outside the image: look at both and correct the label file's position or size"


def _size_advice(same_shape: bool) -> str:
    """For files that do not say where they lie; only their sizes can differ."""
    if same_shape:
        return "give both the same voxel size in the .json files beside them"
    return "their sizes differ: look at both and replace the one that belongs to another image"
