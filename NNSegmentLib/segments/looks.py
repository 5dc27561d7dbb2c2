"""How the segments in a label map look, to tell later whether somebody has changed them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

_SAME_PLACE_MM = 1e-3


@dataclass(frozen=True)
class SegmentLook:
    """Where the voxels of a segment are; all empty segments look alike."""

    corners: tuple[tuple[float, ...], ...] = ()
    """The first and the last voxel of the box around them, as (x, y, z) in mm."""
    content: str = ""
    """A hash of which voxels of the box are in the segment."""

    def is_same(self, other: SegmentLook) -> bool:
        """Whether both have the same voxels, however large the label maps around them are."""
        same_content = self.content == other.content
        return same_content and np.allclose(self.corners, other.corners, rtol=0, atol=_SAME_PLACE_MM)


def looks_in(
    array: np.ndarray, first: tuple[int, int, int], ijk_to_mm: np.ndarray, values: Mapping[str, int]
) -> dict[str, SegmentLook]:
    """How segments (id → value) look in their label map (Z, Y, X), in which all boxes are found in one pass.

    `first` is the (x, y, z) index of its first voxel, and `ijk_to_mm` the 4×4 matrix from there to mm.
    """
    from scipy import ndimage

    boxes = dict(enumerate(ndimage.find_objects(array), 1)) if array.size else {}
    return {
        i: SegmentLook() if boxes.get(value) is None else _look(array, boxes[value], first, ijk_to_mm, value)
        for i, value in values.items()
    }


def _look(array: np.ndarray, box: tuple[slice, ...], first, ijk_to_mm: np.ndarray, value: int) -> SegmentLook:
    ends = [part.start for part in box[::-1]], [part.stop - 1 for part in box[::-1]]
    corners = tuple(tuple((ijk_to_mm @ (*np.add(first, end), 1))[:3].tolist()) for end in ends)
    inside = np.packbits(array[box] == value)
    return SegmentLook(corners, f"{array[box].shape} {hashlib.blake2b(inside, digest_size=16).hexdigest()}")
