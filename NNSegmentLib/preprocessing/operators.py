"""Interpolation along one axis as a matrix: built once from scipy's spline zoom, then applied as matrix products.

Resizing with splines is linear and separable, so the zoom of an identity matrix is the exact operator of one axis,
and a volume is resized by one product per axis. Rows are nearly local (the weights of a cubic spline fall by 0.27 per
voxel), so the products run over blocks of rows with only the columns that matter.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

BLOCK = 32
"""Rows of one product; measured: 16 to 32 rows are four times faster than the full matrix at 128 → 256."""
SINGLE_THREADED = 1 << 18
"""Multiplications of one product: OpenBLAS does not start its own threads up to here. They would wait for each other
when several of our threads call at once (a hundred times slower on a busy machine)."""
NEGLIGIBLE = 1e-9
"""Weights below this are dropped: far under the rounding of float32."""


@dataclass(frozen=True)
class Block:
    """Some rows of an operator: output voxels [start, stop) from input voxels [first, last)."""

    start: int
    stop: int
    first: int
    last: int
    weights: np.ndarray
    """(stop - start, last - first) float32."""

    def moved(self) -> Block:
        """The same rows for arrays that begin at input voxel `first` and end at `last`."""
        return Block(0, self.stop - self.start, 0, self.last - self.first, self.weights)


@dataclass(frozen=True)
class Taps:
    """Linear interpolation along one axis: output = (1 - weight)·input[left] + weight·input[right]."""

    left: np.ndarray
    right: np.ndarray
    weight: np.ndarray
    """float64."""


def centres(n: int, m: int) -> np.ndarray:
    """Positions, in voxels of an axis of n, of the centres of m voxels over the same length, kept inside it."""
    return np.clip((np.arange(m) + 0.5) * (n / m) - 0.5, 0, n - 1)


@lru_cache(maxsize=64)
def nearest(n: int, m: int) -> np.ndarray:
    """For each of m voxels the nearest of n; halfway goes up, as scipy's order 0 does."""
    return np.floor(centres(n, m) + 0.5).astype(np.intp)


@lru_cache(maxsize=64)
def taps(n: int, m: int) -> Taps:
    """The two input voxels and the weight of every output voxel, edges repeated."""
    at = centres(n, m)
    left = np.floor(at).astype(np.intp)
    return Taps(left, np.minimum(left + 1, n - 1), at - left)


@lru_cache(maxsize=8)  # up to 8 MB each
def spline_matrix(n: int, m: int, order: int) -> np.ndarray:
    """(m, n) float64: what `skimage.transform.resize(order, mode='edge')` does along one axis."""
    from scipy import ndimage

    return ndimage.zoom(np.eye(n), (m / n, 1), order=order, mode="nearest", grid_mode=True)


def _matrix(n: int, m: int, order: int) -> np.ndarray:
    return np.eye(n)[nearest(n, m)] if order == 0 else spline_matrix(n, m, order)


@lru_cache(maxsize=64)
def blocks(n: int, m: int, order: int) -> tuple[Block, ...]:
    """The operator of order `order` cut into row blocks, ready for `apply`."""
    matrix = _matrix(n, m, order)
    return tuple(_block(matrix, start, min(start + BLOCK, m)) for start in range(0, m, BLOCK))


def rows(n: int, m: int, order: int, start: int, stop: int) -> Block:
    """Rows [start, stop) of an operator, for results that are made slab by slab."""
    return _block(_matrix(n, m, order), start, stop)


def apply(array: np.ndarray, axis: int, parts: tuple[Block, ...]) -> np.ndarray:
    """A volume (Z, Y, X) float32 with `axis` resized by the operator `parts`; a new array."""
    result = np.empty((*array.shape[:axis], parts[-1].stop, *array.shape[axis + 1 :]), np.float32)
    # stacks of planes in which the axis comes first (left product), or of rows along it (right product)
    order = (1, 0, 2) if axis == 0 else (0, 1, 2)
    source, target = array.transpose(order), result.transpose(order)
    multiply = _multiply_rows if axis == 2 else _multiply_planes
    for part in parts:
        multiply(part, source, target)
    return result


def _multiply_planes(part: Block, source: np.ndarray, target: np.ndarray) -> None:
    for columns in _pieces(part, source.shape[2]):
        out = target[:, part.start : part.stop, columns]
        np.matmul(part.weights, source[:, part.first : part.last, columns], out=out)


def _multiply_rows(part: Block, source: np.ndarray, target: np.ndarray) -> None:
    for some in _pieces(part, source.shape[1]):
        out = target[:, some, part.start : part.stop]
        np.matmul(source[:, some, part.first : part.last], part.weights.T, out=out)


def _pieces(part: Block, length: int) -> list[slice]:
    step = max(1, SINGLE_THREADED // part.weights.size)
    return [slice(start, min(start + step, length)) for start in range(0, length, step)]


def _block(matrix: np.ndarray, start: int, stop: int) -> Block:
    used = np.flatnonzero((np.abs(matrix[start:stop]) > NEGLIGIBLE).any(axis=0))
    first, last = int(used[0]), int(used[-1]) + 1
    return Block(start, stop, first, last, np.ascontiguousarray(matrix[start:stop, first:last], np.float32))
