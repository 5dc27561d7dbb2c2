"""How well two label maps agree: overlap counts, and distances between surfaces in mm. Arrays in, numbers out.

Empty masks: overlap scores of two empty masks are NaN (nnU-Net's rule). For surfaces, nothing against nothing is
NaN as well; when exactly one side is empty the Hausdorff distance is infinite and the surface Dice 0, as in
DeepMind's surface-distance library.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from .labels import Region

_LARGEST_DIRECT_VALUE = 1023
_SLAB_VOXELS = 1 << 22
_MAP_PAYS = 60
"""A distance map costs about as much per 60 voxels as a tree search per (distant) point."""
_ROUNDING = 1e-5
"""Of distances, as a share: voxel sizes in NIfTI headers have single precision, and 3 × 0.1 is more than 0.3."""
Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Counts:
    """Voxels of one target: true and false positives, false and true negatives."""

    tp: int
    fp: int
    fn: int
    tn: int

    @property
    def n_pred(self) -> int:
        return self.tp + self.fp

    @property
    def n_ref(self) -> int:
        return self.tp + self.fn

    @property
    def dice(self) -> float:
        """2 TP / (2 TP + FP + FN); NaN when both masks are empty."""
        return _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def iou(self) -> float:
        """TP / (TP + FP + FN); NaN when both masks are empty."""
        return _ratio(self.tp, self.tp + self.fp + self.fn)


@dataclass(frozen=True)
class PairTable:
    """How often each reference value meets each predicted value: one pass over the voxels serves every target."""

    values: np.ndarray
    """The label values (n,) that rows and columns stand for."""
    voxels: np.ndarray
    """(n reference, n predicted) voxel numbers."""

    @property
    def reference_values(self) -> frozenset[int]:
        """The values that occur in the reference."""
        return frozenset(int(value) for value in self.values[self.voxels.any(axis=1)])

    def counts(self, region: Region) -> Counts:
        """The counts of the target made of these label values."""
        inside = np.isin(self.values, region)
        rows = self.voxels[inside]
        tp = int(rows[:, inside].sum())
        n_ref, n_pred = int(rows.sum()), int(self.voxels[:, inside].sum())
        return Counts(tp, n_pred - tp, n_ref - tp, int(self.voxels.sum()) - n_pred - n_ref + tp)


def tabulate(prediction: np.ndarray, reference: np.ndarray, ignore: int | None = None) -> PairTable:
    """The pair table of two label maps of one shape; voxels whose reference is `ignore` are left out."""
    values, prediction, reference = _codes(prediction, reference)
    n = len(values)
    total = np.zeros(n * n, np.int64)
    for start in range(0, prediction.size, _SLAB_VOXELS):
        slab = slice(start, start + _SLAB_VOXELS)
        pairs = reference[slab].astype(np.intp)
        pairs *= n
        pairs += prediction[slab]
        total += np.bincount(pairs, minlength=n * n)
    voxels = total.reshape(n, n)
    if ignore is not None:
        voxels[values == ignore] = 0
    return PairTable(values, voxels)


@dataclass(frozen=True)
class SurfaceDistances:
    """Distances in mm from each surface voxel of one mask to the nearest surface voxel of the other."""

    to_reference: np.ndarray
    """One per surface voxel of the prediction; infinite when the reference is empty."""
    to_prediction: np.ndarray
    """One per surface voxel of the reference; infinite when the prediction is empty."""

    @property
    def hd95_mm(self) -> float:
        """The larger of the two directed 95th percentiles; NaN if both masks are empty, infinite if one is."""
        sides = [side for side in (self.to_reference, self.to_prediction) if side.size]
        if not sides:
            return float("nan")
        return max(float("inf") if np.isinf(side[0]) else float(np.percentile(side, 95)) for side in sides)

    def nsd(self, tolerance_mm: float) -> float:
        """Normalised surface Dice: the share of surface voxels within `tolerance_mm` of the other surface.

        A distance that equals the tolerance but for rounding is within it, whatever the file type tells the voxel size.
        """
        reach = tolerance_mm * (1 + _ROUNDING)
        near = sum(int(np.count_nonzero(side <= reach)) for side in (self.to_reference, self.to_prediction))
        return _ratio(near, self.to_reference.size + self.to_prediction.size)


def surface_distances(
    prediction: np.ndarray, reference: np.ndarray, spacing_mm: ArrayLike, axes: Sequence[int] = (0, 1, 2)
) -> SurfaceDistances:
    """Surface distances of two boolean masks (Z, Y, X) with voxels of `spacing_mm` (z, y, x).

    Where axes are not perpendicular, `spacing_mm` has three rows: the way in mm from voxel to voxel along z, y and x.
    A surface voxel has a face neighbour outside its mask along one of `axes`; beyond the array is outside.
    """
    predicted, expected = surface(prediction, axes), surface(reference, axes)
    return SurfaceDistances(
        _distances(predicted, expected, spacing_mm),
        _distances(expected, predicted, spacing_mm),
    )


def surface(mask: np.ndarray, axes: Sequence[int] = (0, 1, 2)) -> np.ndarray:
    """The voxels of a mask that have a face neighbour outside it."""
    inner = mask.copy()
    for axis in axes:
        inside, whole = np.moveaxis(inner, axis, 0), np.moveaxis(mask, axis, 0)
        inside[1:] &= whole[:-1]
        inside[:-1] &= whole[1:]
        inside[:1] = inside[-1:] = False
    return mask & ~inner


def region_surface_distances(
    prediction: np.ndarray,
    reference: np.ndarray,
    regions: Sequence[Region],
    spacing_mm: ArrayLike,
    ignore: int | None = None,
) -> list[SurfaceDistances]:
    """Surface distances of each target of two label maps (Z, Y, X); each looks only at its own bounding box.

    Voxels whose reference is `ignore` count as outside every target in both maps. An axis of a single voxel has no
    surface. `spacing_mm` is that of `surface_distances`.
    """
    axes = [axis for axis, n in enumerate(reference.shape) if n > 1]
    boxes = _boxes(prediction), _boxes(reference)
    found = []
    for region in regions:
        box = _joint_box([by_value[value] for by_value in boxes for value in region if value in by_value])
        box = (slice(None),) * 3 if 0 in region else box
        masks = [_mask(labels[box], region) for labels in (prediction, reference)]
        if ignore is not None:
            masks = [mask & (reference[box] != ignore) for mask in masks]
        found.append(surface_distances(*masks, spacing_mm, axes))
    return found


def _distances(start: np.ndarray, end: np.ndarray, spacing_mm: ArrayLike) -> np.ndarray:
    """Distance in mm from each voxel of `start` to the nearest of `end`; common voxels need no search."""
    distances = np.zeros(int(np.count_nonzero(start)))
    if not end.any():
        return np.full(len(distances), np.inf)
    away = start & ~end
    n_away = int(np.count_nonzero(away))
    if n_away:
        steps = np.asarray(spacing_mm, float)
        measure = _by_map if steps.ndim == 1 and n_away > away.size / _MAP_PAYS else _by_tree
        distances[:n_away] = measure(away, end, steps)
    return distances


def _by_tree(away: np.ndarray, end: np.ndarray, steps_mm: np.ndarray) -> np.ndarray:
    from scipy.spatial import cKDTree

    rows = np.diag(steps_mm) if steps_mm.ndim == 1 else steps_mm
    return cKDTree(np.argwhere(end) @ rows).query(np.argwhere(away) @ rows)[0]


def _by_map(away: np.ndarray, end: np.ndarray, spacing_mm: np.ndarray) -> np.ndarray:
    from scipy.ndimage import distance_transform_edt

    return distance_transform_edt(~end, spacing_mm)[away]


def _codes(prediction: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(values, flat prediction, flat reference) with both maps as indices into values."""
    prediction, reference = np.ravel(prediction), np.ravel(reference)
    if not prediction.size:
        return np.zeros(1, np.int64), prediction, reference
    low = min(int(prediction.min()), int(reference.min()))
    high = max(int(prediction.max()), int(reference.max()))
    if low >= 0 and high <= _LARGEST_DIRECT_VALUE:
        return np.arange(high + 1), prediction, reference
    values, codes = np.unique(np.concatenate([prediction, reference]), return_inverse=True)
    return values, codes[: prediction.size], codes[prediction.size :]


def _boxes(labels: np.ndarray) -> dict[int, Box]:
    from scipy.ndimage import find_objects

    found = find_objects(labels.astype(np.int32, copy=False))
    return {value: box for value, box in enumerate(found, start=1) if box is not None}


def _joint_box(boxes: Sequence[Box]) -> Box:
    if not boxes:
        return (slice(0, 0),) * 3
    return tuple(slice(min(s.start for s in axis), max(s.stop for s in axis)) for axis in zip(*boxes, strict=True))


def _mask(labels: np.ndarray, region: Region) -> np.ndarray:
    return labels == region[0] if len(region) == 1 else np.isin(labels, region)


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
