"""Are two grids the same, the same but for rounding in a header, or in different places?"""

from __future__ import annotations

import numpy as np

from ..geometry import Geometry

SAME, NOISE, ELSEWHERE = "same", "noise", "elsewhere"
TOLERANCE_MM = 1e-3
_DIRECTION_NOISE = 1e-3
_SPACING_NOISE = 1e-3
_ORIGIN_NOISE = 0.01
"""In voxels."""


def compare_grids(image: Geometry, other: Geometry) -> str:
    """'same' within 0.001 mm at every corner, 'noise' for rounding in the header, or 'elsewhere'."""
    if image.same_grid(other, TOLERANCE_MM):
        return SAME
    if image.shape != other.shape:
        return ELSEWHERE
    turned = np.abs(np.subtract(image.direction, other.direction)).max()
    stretched = np.abs(np.divide(other.spacing_mm, image.spacing_mm) - 1).max()
    moved = np.abs(np.subtract(image.origin_mm, other.origin_mm)).max() / min(image.spacing_mm)
    is_noise = turned < _DIRECTION_NOISE and stretched < _SPACING_NOISE and moved < _ORIGIN_NOISE
    return NOISE if is_noise else ELSEWHERE
