"""Single planes, to which nnU-Net gives a made-up thickness, and pictures, whose pixels have no size in mm either."""

from __future__ import annotations

from collections.abc import Sequence

PLANE_SPACING = 999.0
"""The out-of-plane voxel size nnU-Net gives to single planes, in multiples of the in-plane size."""


def is_plane(shape: Sequence[int], spacing_mm: Sequence[float]) -> bool:
    """Whether a grid (z, y, x) is one plane of made-up thickness."""
    return shape[0] == 1 and spacing_mm[0] >= 0.99 * PLANE_SPACING * max(spacing_mm[1:])


def is_of_pictures(spacing_mm: Sequence[float]) -> bool:
    """Whether a voxel size (z, y, x) is the one that stands for pictures, all of whose pixels measure 1."""
    return tuple(spacing_mm) == (PLANE_SPACING, 1.0, 1.0)
