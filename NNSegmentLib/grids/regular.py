"""Voxels brought onto a regular grid: sheared volumes, and channels that lie on another grid than the first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import ImageError
from ..geometry import HARDLY_ASKEW, Geometry
from ..prediction import Prediction
from .comparison import ELSEWHERE, compare_grids

_SAME_VOXEL = 0.49
"""Voxels: what lies no further apart is nearest to its counterpart."""


@dataclass(frozen=True)
class Voxels:
    """An image anywhere in the world, its axes not necessarily perpendicular."""

    array: np.ndarray
    """(C, Z, Y, X)."""
    ijk_to_ras: np.ndarray
    """4×4 matrix from the (x, y, z) index to the RAS position in mm."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along (z, y, x)."""
        return self.array.shape[1:]

    @property
    def is_sheared(self) -> bool:
        """Whether the axes are not perpendicular, as in a volume from a tilted gantry."""
        return self.geometry.shear > HARDLY_ASKEW

    @property
    def geometry(self) -> Geometry:
        """The grid, which may be sheared; raises ImageError for a voxel size of 0."""
        return Geometry.from_ijk_to_ras(self.shape, self.ijk_to_ras)


def onto_first_grid(
    names: Sequence[str], volumes: Sequence[Voxels], irregular: str = "resample"
) -> tuple[tuple[np.ndarray, ...], Geometry, tuple[str, ...]]:
    """All channels (Z, Y, X) on one regular grid, that grid, and sentences about what was resampled.

    The grid is that of the first volume, or the regular one around it when it is sheared. Raises ImageError for a
    sheared volume with `irregular="refuse"`, and for a volume that lies elsewhere than the first.
    """
    notes = [_sheared_note(name, irregular) for name, v in zip(names, volumes, strict=True) if v.is_sheared]
    first = volumes[0]
    grid = regular_geometry(first.shape, first.ijk_to_ras) if first.is_sheared else first.geometry
    channels: list[np.ndarray] = []
    for name, voxels in zip(names, volumes, strict=True):
        if not voxels.is_sheared and compare_grids(grid, voxels.geometry) != ELSEWHERE:
            channels.extend(voxels.array)
            continue
        if not _meets(voxels, grid):
            raise ImageError(f"{name} lies elsewhere than {names[0]}; register them, or take another volume.")
        channels.extend(resampled(channel, voxels.ijk_to_ras, grid) for channel in voxels.array)
        if not voxels.is_sheared:
            notes.append(f"{name} was resampled onto the grid of {names[0]}.")
    return tuple(channels), grid, tuple(notes)


def regular_geometry(shape: tuple[int, int, int], ijk_to_ras: np.ndarray) -> Geometry:
    """The smallest regular grid around a sheared one of `shape` (z, y, x) voxels.

    It keeps the x axis and the x-y plane; z stands upright on it, keeping its handedness. Voxels are as far apart as
    the columns, rows and planes of the sheared grid.
    """
    direction, steps = np.linalg.qr(ijk_to_ras[:3, :3])
    direction, spacing = direction * np.sign(np.diag(steps)), np.abs(np.diag(steps))
    along = direction.T @ (ijk_to_ras[:3, :3] @ _corners(shape) + ijk_to_ras[:3, 3:]) / spacing[:, None]
    low, high = along.min(axis=1), along.max(axis=1)
    matrix = np.eye(4)
    matrix[:3, :3] = direction * spacing
    matrix[:3, 3] = direction @ (low * spacing)
    size = np.ceil(high - low - 1e-6).astype(int) + 1
    return Geometry.from_ijk_to_ras(tuple(size[::-1]), matrix)


def resampled(array: np.ndarray, ijk_to_ras: np.ndarray, grid: Geometry) -> np.ndarray:
    """An image (Z, Y, X) as float32 on another grid by linear interpolation; outside its voxels their lowest value."""
    values = _carried(array.astype(np.float32), ijk_to_ras, grid.ijk_to_ras, grid.shape, 1, "nearest")
    is_inside = _carried(np.ones(array.shape, np.uint8), ijk_to_ras, grid.ijk_to_ras, grid.shape)
    values[is_inside == 0] = array.min()
    return values


def labels_on_voxels(prediction: Prediction, candidates: Sequence[np.ndarray], shape: tuple, name: str) -> np.ndarray:
    """The labels (Z, Y, X) of a prediction on a volume of `shape` voxels, exact wherever the grids agree.

    `candidates` are 4×4 index → RAS matrices of the volume, the likeliest first: with the transforms it is under, and
    without. On any other grid each voxel takes the nearest label. Raises ImageError when nothing of it meets the volume.
    """
    volumes = [Voxels(np.broadcast_to(np.uint8(0), (1, *shape)), matrix) for matrix in candidates]
    for voxels in (v for v in volumes if not v.is_sheared):
        if compare_grids(voxels.geometry, prediction.geometry) != ELSEWHERE:
            return prediction.labels
        turned = _turned(prediction, voxels.geometry)
        if turned is not None:
            return turned
    source = prediction.geometry
    if not _meets(Voxels(prediction.labels[None], source.ijk_to_ras), volumes[0]):
        raise ImageError(f"The prediction lies elsewhere than {name}; choose the volume it was made for.")
    return _carried(prediction.labels, source.ijk_to_ras, candidates[0], shape)


def labels_on_grid(labels: np.ndarray, ijk_to_ras: np.ndarray, grid: Geometry) -> np.ndarray:
    """Labels (Z, Y, X) that lie anywhere in the world on a grid: every voxel takes the nearest one, 0 outside.

    They are copied as they are where only the borders differ, as with segments cropped to what they hold.
    """
    matrix = np.linalg.inv(ijk_to_ras) @ grid.ijk_to_ras
    corners = _corners(grid.shape)
    shift = np.rint(matrix[:3, 3])
    moved = matrix[:3, :3] @ corners + matrix[:3, 3:] - corners - shift[:, None]
    if np.abs(moved).max() < _SAME_VOXEL:
        return _pasted(labels, shift[::-1].astype(int), grid.shape)
    return _carried(labels, ijk_to_ras, grid.ijk_to_ras, grid.shape)


def share_inside(inside: np.ndarray, ijk_to_ras: np.ndarray, grid: Geometry) -> float:
    """How much of the voxels that are set in `inside` (Z, Y, X) lies in the grid: 0 to 1, NaN when none is set."""
    xyz = np.argwhere(inside)[:, ::-1]
    if not len(xyz):
        return float("nan")
    matrix = np.linalg.inv(grid.ijk_to_ras) @ ijk_to_ras
    index = np.rint(xyz @ matrix[:3, :3].T + matrix[:3, 3])
    return float(((index >= 0) & (index < grid.shape[::-1])).all(axis=1).mean())


def _pasted(array: np.ndarray, shift: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Voxel (0, 0, 0) of the result is voxel `shift` (z, y, x) of the array; 0 outside the array."""
    if not shift.any() and array.shape == tuple(shape):
        return array
    out = np.zeros(shape, array.dtype)
    starts = np.maximum(0, -shift)
    stops = np.clip(np.array(array.shape) - shift, starts, shape)
    there = tuple(slice(a, b) for a, b in zip(starts, stops, strict=True))
    here = tuple(slice(a, b) for a, b in zip(starts + shift, stops + shift, strict=True))
    out[there] = array[here]
    return out


def _turned(prediction: Prediction, grid: Geometry) -> np.ndarray | None:
    """The labels with axes swapped and flipped when that alone brings them onto the grid, else None."""
    try:
        labels = prediction.on_grid(grid).labels
    except ImageError:
        return None
    corners = _corners(prediction.labels.shape)[::-1].T
    mine, its = prediction.geometry.world(corners), grid.world(_corners(grid.shape)[::-1].T)
    distance = np.linalg.norm(mine[:, None] - its[None], axis=-1).min(axis=1).max()
    return labels if distance < 0.01 * min(grid.spacing_mm) else None


def _carried(
    array, source: np.ndarray, target: np.ndarray, shape, order: int = 0, beyond: str = "grid-constant"
) -> np.ndarray:
    """The array by its nearest voxels, which reach half a voxel around their centres: 0 beyond them."""
    from scipy.ndimage import affine_transform

    matrix = np.linalg.inv(source) @ target  # rounded, so that arithmetic decides nothing halfway between voxels
    offset, steps = np.round(matrix[2::-1, 3], 9), np.round(matrix[2::-1, 2::-1], 12)
    return affine_transform(array, steps, offset, tuple(shape), order=order, mode=beyond)


def _meets(voxels: Voxels, grid: Geometry | Voxels) -> bool:
    """Whether the boxes of two grids have a part in common, seen along the axes of the first."""
    matrix = np.linalg.inv(voxels.ijk_to_ras) @ grid.ijk_to_ras
    index = matrix[:3, :3] @ _corners(grid.shape) + matrix[:3, 3:]
    size = np.array(voxels.shape[::-1])
    return bool((index.max(axis=1) >= -0.5).all() and (index.min(axis=1) <= size - 0.5).all())


def _corners(shape: Sequence[int]) -> np.ndarray:
    """Corner indices (3, 8) in (x, y, z) order of an array of `shape` (z, y, x)."""
    return np.array(np.meshgrid(*[(0, n - 1) for n in shape[::-1]], indexing="ij")).reshape(3, -1)


def _sheared_note(name: str, irregular: str) -> str:
    if irregular == "refuse":
        raise ImageError(
            f"The axes of {name} are not perpendicular (a sheared, gantry-tilted volume); resample it onto a regular "
            "grid first."
        )
    return f"{name} has axes that are not perpendicular (gantry tilt) and was resampled onto a regular grid."
