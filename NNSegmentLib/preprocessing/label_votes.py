"""Labels on another grid: of the eight voxels around a point, the label with the largest linear weight wins.

Nearly every new voxel lies between voxels of one label. Those are copied; only the others are voted on, at a cost
that does not depend on the number of labels.
"""

from __future__ import annotations

from itertools import product

import numpy as np

from . import operators

_AT_ONCE = 1 << 18
"""New voxels that are voted on together, so that the weights stay in the processor's cache."""


def resized(labels: np.ndarray, shape: tuple[int, int, int], linear: bool) -> np.ndarray:
    """(Z, Y, X) integers resized along every axis whose size differs; `linear` False takes the nearest voxel."""
    result = labels
    for axis, (n, m) in enumerate(zip(labels.shape, shape, strict=True)):
        if n != m:
            result = result.take(operators.nearest(n, m), axis=axis)
    if linear:
        axes = [operators.taps(n, m) for n, m in zip(labels.shape, shape, strict=True)]
        mixed = _mixed_voxels(labels, axes)
        flat = result.reshape(-1)
        for start in range(0, len(mixed), _AT_ONCE):
            voxels = mixed[start : start + _AT_ONCE]
            flat[voxels] = _winners(labels, axes, np.unravel_index(voxels, shape), flat[voxels])
    return result


def _mixed_voxels(labels: np.ndarray, axes: list[operators.Taps]) -> np.ndarray:
    """Flat indices of the new voxels whose neighbours do not all carry one label."""
    low = high = labels
    for axis, t in enumerate(axes):
        if _moves(t):
            low, high = _with_next(np.minimum, low, axis), _with_next(np.maximum, high, axis)
    mixed = low != high
    for axis, t in enumerate(axes):
        if len(t.left) != labels.shape[axis]:
            mixed = mixed.take(t.left, axis=axis)
    return np.flatnonzero(mixed)


def _with_next(smaller_or_larger: np.ufunc, array: np.ndarray, axis: int) -> np.ndarray:
    """For each voxel the extreme of it and its next neighbour along the axis; the last one is alone."""
    result = array.copy()
    here, following = (slice(None),) * axis + (slice(-1),), (slice(None),) * axis + (slice(1, None),)
    smaller_or_larger(array[here], array[following], out=result[here])
    return result


def _winners(labels: np.ndarray, axes: list[operators.Taps], voxels, nearest: np.ndarray) -> np.ndarray:
    """The winning labels of the new voxels, given as (z, y, x) index arrays, with their nearest labels for ties."""
    corners, weights = _corners(labels, axes, voxels)
    low, high = corners.min(axis=0), corners.max(axis=0)
    is_low, is_high = corners == low, corners == high
    winners = _larger(low, high, _votes(weights, is_low), _votes(weights, is_high), nearest)
    several = np.flatnonzero(~(is_low | is_high).all(axis=0))
    winners[several] = _winner_of_many(corners[:, several], weights[:, several], nearest[several])
    return winners


def _corners(labels: np.ndarray, axes: list[operators.Taps], voxels) -> tuple[np.ndarray, np.ndarray]:
    """Labels (K, N) and weights (K, N) of the K = 2, 4 or 8 voxels around each of N new voxels."""
    z, y, x = (_ends(t, at) for t, at in zip(axes, voxels, strict=True))
    corners = [labels[a, b, c] for (a, _), (b, _), (c, _) in product(z, y, x)]
    weights = [u * v * w for (_, u), (_, v), (_, w) in product(z, y, x)]
    return np.stack(corners), np.stack(weights)


def _ends(t: operators.Taps, at: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    weight = t.weight[at]
    left = (t.left[at], 1 - weight)
    return [left, (t.right[at], weight)] if _moves(t) else [left]


def _moves(t: operators.Taps) -> bool:
    """Whether any new voxel lies between two old ones along the axis."""
    return bool(t.weight.any())


def _votes(weights: np.ndarray, is_label: np.ndarray) -> np.ndarray:
    return np.einsum("kn,kn->n", weights, is_label)


def _larger(low, high, votes_low, votes_high, nearest) -> np.ndarray:
    """The label with more votes; equal votes go to the nearest label where it is one of the two, else the smaller."""
    winners = np.where(votes_high > votes_low, high, low)
    tied = (votes_high == votes_low) & (nearest == high)
    winners[tied] = high[tied]
    return winners


def _winner_of_many(corners: np.ndarray, weights: np.ndarray, nearest: np.ndarray) -> np.ndarray:
    votes = np.stack([_votes(weights, corners == corner) for corner in corners])
    leads = votes == votes.max(axis=0)
    smallest = np.where(leads, corners, corners.max(axis=0)).min(axis=0)
    return np.where((leads & (corners == nearest)).any(axis=0), nearest, smallest)
