"""What one pass over the files of a case shows: channels, opacities, label values and their colours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ..errors import TaskError
from ..image import FLAT_ENDINGS, PLANE_ENDINGS, TIFF_ENDINGS, file_ending, read_label_array, whole_numbers
from ..image_files.palettes import coloured_palette
from ..image_files.tiff import require_one_time, unused_spacing
from .source import Layout, SourceCase, has_opaque_alpha, require_opaque, stored_layout

_MOST_VALUES_IN_A_PICTURE = 64
"""More grey values than this in a PNG mask mean smoothed borders or an image, not labels."""


@dataclass(frozen=True)
class Facts:
    """What one pass over a case's files shows."""

    channels: int
    is_plane: bool
    fits_png: bool
    channels_first: bool = False
    """Whether an image is a TIFF whose channels have to be taken apart."""
    alphas: tuple[Path, ...] = ()
    """The images whose last channel is an opacity."""
    alpha_varies: bool = False
    """Whether such a channel is not full everywhere, and so may be any other channel."""
    has_header_spacing: bool = False
    """Whether the voxel size comes from the header of a TIFF stack."""
    values: frozenset[int] = frozenset()
    """Of the labels."""
    colours: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    """The colour of each value in a mask with a coloured palette."""


def image_facts(case: SourceCase, planes: bool = False) -> Facts:
    """What the images of a case show; `planes` tells that they are no volumes. Raises ImageError, also for films."""
    headers = [_header(path, planes) for path in case.images]
    return Facts(
        channels=sum(header.channels for header in headers),
        is_plane=planes,
        fits_png=all(header.fits_png for header in headers),
        channels_first=any(header.channels_first for header in headers),
        alphas=tuple(path for path, header in zip(case.images, headers, strict=True) if header.has_alpha),
        has_header_spacing=not planes and _has_header_spacing(case.images),
    )


def picture_facts(case: SourceCase, planes: bool) -> Facts:
    """The same with a look at opacities; raises ImageError where that of a PNG or BMP is not full everywhere.

    In a TIFF that varies, the last channel may be called an opacity wrongly.
    """
    facts = image_facts(case, planes)
    for path in facts.alphas:
        if file_ending(path) in PLANE_ENDINGS:
            require_opaque(path)
    in_tiffs = [path for path in facts.alphas if file_ending(path) in TIFF_ENDINGS]
    return replace(facts, alpha_varies=not all(has_opaque_alpha(path) for path in in_tiffs))


def _header(path: Path, planes: bool) -> Layout:
    """The layout of an image; raises ImageError, also for films."""
    layout = stored_layout(path, planes)
    if layout.is_film:
        require_one_time(path)
    return layout


def _has_header_spacing(images: Sequence[Path]) -> bool:
    return bool(images) and file_ending(images[0]) in TIFF_ENDINGS and unused_spacing(images[0]) is not None


def facts_of(case: SourceCase) -> Facts:
    """What a case's images and labels show; raises ImageError, and TaskError for what is no label map."""
    labels, geometry = read_label_array(case.labels)
    if len(labels) != 1:
        raise TaskError(
            f"{case.labels} should hold one label map, found {len(labels)} channels; save it as grey values, 0 for the "
            "background and 1, 2, … for the labels."
        )
    if file_ending(case.labels) in TIFF_ENDINGS:
        require_one_time(case.labels)
    values = frozenset(_values(whole_numbers(labels[0], case.labels), case.labels))
    colours = _colours(case.labels, values)
    return replace(picture_facts(case, planes=geometry.dimension == 2), values=values, colours=colours)


def _colours(path: Path, values: frozenset[int]) -> dict[int, tuple[int, ...]]:
    """The colour of each of these values in a mask with a coloured palette; empty for other masks."""
    if file_ending(path) not in PLANE_ENDINGS:
        return {}
    return {number: colour for number, colour in enumerate(coloured_palette(path)) if number in values}


def _values(labels: np.ndarray, path: Path) -> list[int]:
    values = [int(value) for value in np.unique(labels)]
    if values[0] < 0:
        raise TaskError(f"{path} should hold labels from 0 on, found {values[0]}; renumber its labels.")
    if file_ending(path) in FLAT_ENDINGS and len(values) > _MOST_VALUES_IN_A_PICTURE:
        raise TaskError(
            f"{path} should hold a few label values, found {len(values)}; is it an image, a mask "
            "with smoothed borders, or one that numbers objects? Make the values of one class 1."
        )
    return values
