"""Where an image differs from zero: the box that is kept, and the mask inside it.

nnU-Net's rule: a voxel counts as non-zero when any channel differs from 0, holes are filled in 3-D, the box is the
tightest around the result. Filling holes never enlarges a box, so `nonzero_box` does without.
"""

from __future__ import annotations

import numpy as np

Box = tuple[tuple[int, int, int], tuple[int, int, int]]
"""First voxel and number of voxels along (z, y, x)."""


def nonzero_box(array: np.ndarray) -> Box:
    """(start, shape) of the tightest box with all non-zero voxels of (C, Z, Y, X); the whole of an all-zero image."""
    rest = array
    starts, stops = [], []
    for axis in (1, 2, 3):
        start, stop = _occupied(np.moveaxis(rest, axis, 0))
        if start == stop:
            return (0, 0, 0), tuple(array.shape[1:])
        starts.append(start)
        stops.append(stop)
        rest = rest[(slice(None),) * axis + (slice(start, stop),)]
    return tuple(starts), tuple(stop - start for start, stop in zip(starts, stops, strict=True))


def cropped(array: np.ndarray, box: Box) -> np.ndarray:
    """A view of the last three axes of (…, Z, Y, X) restricted to a box."""
    start, shape = box
    return array[(..., *(slice(a, a + n) for a, n in zip(start, shape, strict=True)))]


def nonzero_mask(array: np.ndarray) -> np.ndarray:
    """Boolean mask (Z, Y, X) of the non-zero voxels of (C, Z, Y, X) with holes filled.

    A hole is a group of zero voxels, connected face to face, that reaches no face of the array. The mask of an
    array cropped to its `nonzero_box` equals the mask of the whole, cropped.
    """
    mask = array[0] != 0
    for channel in array[1:]:
        mask |= channel != 0
    if mask.all() or min(mask.shape) < 3:
        return mask
    return mask | _holes(mask)


def _occupied(slices: np.ndarray) -> tuple[int, int]:
    """First and one past the last entry of the leading axis that differs from zero; equal when there is none."""
    start = next((i for i in range(len(slices)) if slices[i].any()), len(slices))
    stop = next((i for i in range(len(slices), start, -1) if slices[i - 1].any()), start)
    return start, stop


def _holes(mask: np.ndarray) -> np.ndarray:
    from scipy import ndimage

    groups, n_groups = ndimage.label(~mask)
    is_hole = np.ones(n_groups + 1, bool)
    is_hole[0] = False
    for axis in range(3):
        for end in (0, -1):
            is_hole[groups.take(end, axis)] = False
    return is_hole[groups]
