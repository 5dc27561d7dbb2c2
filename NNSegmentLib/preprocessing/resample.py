"""To another grid by nnU-Net's rule: splines in 3-D, or slice by slice when the slices are far apart.

The results equal `skimage.transform.resize(order, mode="edge", anti_aliasing=False)` for images and batchgenerators'
`resize_segmentation(order=1)` for labels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import PlanError
from ..planning.plan import Resampling
from . import label_votes, operators
from .prepared import Placement

Shape = tuple[int, int, int]
ANISOTROPY = 3.0
"""nnU-Net's threshold: slices more than three times as far apart as voxels in plane are resampled on their own."""
_SPLINE, _LINEAR = "resample_data_or_seg_to_shape", "resample_torch_fornnunet"


def new_shape(shape: Sequence[int], spacing_mm: Sequence[float], new_spacing_mm: Sequence[float]) -> Shape:
    """Voxels along (z, y, x) that keep the extent at the new spacing, halves rounded to even, at least one."""
    return tuple(max(1, round(old / new * n)) for n, old, new in zip(shape, spacing_mm, new_spacing_mm, strict=True))


def prepared_shape(placement: Placement) -> Shape:
    """Voxels along (z, y, x) of the prepared array, all of the crop box at the network's spacing."""
    return new_shape(placement.crop_shape, placement.original_spacing_mm, placement.spacing_mm)


def separate_axis(spacing_mm: Sequence[float], new_spacing_mm: Sequence[float], force: bool | None) -> int | None:
    """The axis that is resampled on its own, or None: nnU-Net's rule, current spacing before the new one.

    Two or three axes of the same largest spacing are never separated. `force` is `force_separate_z` of the plan.
    """
    if force is not None:
        return _largest_axis(spacing_mm) if force else None
    for spacing in (spacing_mm, new_spacing_mm):
        if max(spacing) / min(spacing) > ANISOTROPY:
            return _largest_axis(spacing)
    return None


def resample_to(
    array: np.ndarray,
    shape: Shape,
    spacing_mm: Sequence[float],
    new_spacing_mm: Sequence[float],
    resampling: Resampling,
) -> np.ndarray:
    """(C, Z, Y, X) float32 resized to (C, *shape); the array itself when the shape does not change.

    Raises PlanError for a resampling function that is not known here.
    """
    if array.shape[1:] == tuple(shape):
        return array
    order, order_z = spline_orders(resampling)
    axis = separate_axis(spacing_mm, new_spacing_mm, resampling.force_separate_z)
    array = np.ascontiguousarray(array, np.float32)
    if axis is None:
        return np.stack([_resized(channel, shape, order, (0, 1, 2), None) for channel in array])
    return np.stack([_resized_separately(channel, shape, order, order_z, axis) for channel in array])


def resample_labels(
    labels: np.ndarray,
    shape: Shape,
    spacing_mm: Sequence[float],
    new_spacing_mm: Sequence[float],
    resampling: Resampling,
) -> np.ndarray:
    """(Z, Y, X) integers resized: every label's indicator is interpolated linearly, the largest wins.

    A tie goes to the nearest voxel's label if it is among the tied ones, else to the smallest. A label −1 (outside)
    counts like any other. Raises PlanError for orders other than 0 and 1.
    """
    if labels.shape == tuple(shape):
        return labels
    order, order_z = spline_orders(resampling)
    if order > 1 or order_z != 0:
        raise PlanError(
            f"Labels can be resampled with order 0 or 1 and order_z 0, the plan asks for {order} and {order_z}; "
            "change resampling_fn_seg_kwargs in the plans file."
        )
    axis = separate_axis(spacing_mm, new_spacing_mm, resampling.force_separate_z)
    if axis is not None and shape[axis] != labels.shape[axis]:
        labels = labels.take(operators.nearest(labels.shape[axis], shape[axis]), axis=axis)
    return label_votes.resized(np.ascontiguousarray(labels), tuple(shape), linear=order == 1)


def spline_orders(resampling: Resampling) -> tuple[int, int]:
    """(order, order along a separate axis); nnU-Net's torch function is linear with nearest slices.

    Raises PlanError for any other function.
    """
    if resampling.function == _SPLINE:
        return resampling.order, resampling.order_z
    if resampling.function == _LINEAR:
        return 1, 0
    raise PlanError(
        f"The plan asks for the resampling function {resampling.function}; supported are {_SPLINE} and {_LINEAR}."
    )


def keeps_precision(resampling: Resampling) -> bool:
    """Whether nnU-Net rounds the result to the number type of what it resamples; its torch function gives float32."""
    return resampling.function == _SPLINE


def _largest_axis(spacing_mm: Sequence[float]) -> int | None:
    largest = [axis for axis in range(3) if spacing_mm[axis] == max(spacing_mm)]
    return largest[0] if len(largest) == 1 else None


def _resized(volume: np.ndarray, shape: Shape, order: int, axes: Sequence[int], clip_axes) -> np.ndarray:
    """(Z, Y, X) resized along `axes`, then limited to the input's range over `clip_axes` (None: all of it)."""
    changing = [axis for axis in axes if volume.shape[axis] != shape[axis]]
    if not changing:
        return volume
    low, high = _range(volume, clip_axes) if order > 1 else (None, None)
    for axis in sorted(changing, key=lambda a: shape[a] / volume.shape[a]):  # shrink first: less to do after
        volume = operators.apply(volume, axis, operators.blocks(volume.shape[axis], shape[axis], order))
    return volume if low is None else np.clip(volume, low, high, out=volume)


def _range(volume: np.ndarray, axes) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest value: splines overshoot, skimage limits them to the input's range."""
    return volume.min(axis=axes, keepdims=True), volume.max(axis=axes, keepdims=True)


def _resized_separately(volume: np.ndarray, shape: Shape, order: int, order_z: int, axis: int) -> np.ndarray:
    """Each slice across `axis` as a plane with its own range, then the slices themselves with `order_z`."""
    n, m = volume.shape[axis], shape[axis]
    in_plane = tuple(a for a in range(3) if a != axis)
    if order_z == 0 and m < n:  # slices that nobody needs are dropped before the work
        volume, n = volume.take(operators.nearest(n, m), axis=axis), m
    volume = _resized(volume, shape, order, in_plane, in_plane)
    if n == m:
        return volume
    if order_z == 0:
        return volume.take(operators.nearest(n, m), axis=axis)
    return operators.apply(volume, axis, operators.blocks(n, m, order_z))
