"""Channels of a case that lie apart by their headers: taken voxel for voxel, as nnU-Net does, but not without a word."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ..errors import some
from ..geometry import Geometry
from ..image import FLAT_ENDINGS, REORIENTING_READERS, file_ending, read_geometry
from ..machine.memory import Say
from .comparison import ELSEWHERE, TOLERANCE_MM, compare_grids


def channels_apart_mm(paths: Sequence[Path], reader: str = "") -> float:
    """The largest distance in mm between a corner of the first channel and the same corner of another, by the headers.

    For files of one size, as they are after they were read together with nnU-Net's `reader`; those that re-orient bring
    corners onto each other that files store in another order. 0 for rounding, and for pictures, which lie nowhere. Raises
    ImageError.
    """
    if len(paths) < 2 or any(file_ending(path) in FLAT_ENDINGS for path in paths):
        return 0.0
    first, *others = [read_geometry(path) for path in paths]
    astray = [other for other in others if compare_grids(first, other) == ELSEWHERE]
    apart_mm = _nearest_corner_mm if reader in REORIENTING_READERS else Geometry.corner_distance_mm
    found = max((apart_mm(first, other) for other in astray), default=0.0)
    return found if found > TOLERANCE_MM else 0.0


def _nearest_corner_mm(one: Geometry, other: Geometry) -> float:
    """The largest distance in mm from a corner of the one to the nearest of the other."""
    a, b = (grid.world([*itertools.product(*((0, n - 1) for n in grid.shape))]) for grid in (one, other))
    return float(np.linalg.norm(a[:, None] - b[None], axis=-1).min(axis=1).max())


def tell_apart(apart_mm: Mapping[str, float], say: Say) -> None:
    """Name the cases whose channels lie apart, by case in mm."""
    astray = [f"{case_id} ({mm:.3g} mm)" for case_id, mm in apart_mm.items() if mm > 0]
    if astray:
        say(
            f"The channels of {some(astray)} lie that far apart by their headers, and are laid upon each other voxel by "
            "voxel, as nnU-Net does: resample them onto the grid of the first channel, unless the headers are wrong."
        )
