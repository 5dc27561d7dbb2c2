"""Where voxels are in the patient: the coordinate convention of the project is written here and nowhere else.

Arrays are indexed (z, y, x), channels first (C, Z, Y, X). Spacing is in mm in array order (z, y, x).
The world is RAS (x to the patient's right, y to the front, z up) as in 3D Slicer. The file libraries
differ: SimpleITK and DICOM speak LPS, so x and y change sign exactly once, in `from_lps` and `to_lps`.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .errors import ImageError

Vector = tuple[float, float, float]
Shape = tuple[int, int, int]
_ROUNDING = 0.05
"""Of a header's unit vectors."""
_SHEAR = 1e-6
"""Largest cosine between two axes that comes from rounding: over 1000 voxels it moves a corner by 0.001 of a voxel."""
HARDLY_ASKEW = 1e-3
"""Cosine between two axes up to which a volume lies nearly the same with axes made perpendicular."""
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])


@dataclass(frozen=True)
class Geometry:
    """The grid of a volume: how many voxels, how large, and where.

    `direction` is a 3×3 matrix given as three rows; its columns are the RAS unit vectors along which the
    x, y and z index (in this order) grow. A negative determinant (left-handed grid) is allowed, and so are axes that
    are not perpendicular (a sheared grid, such as a gantry-tilted CT's).
    """

    shape: Shape
    """Voxels along (z, y, x)."""
    spacing_mm: Vector = (1.0, 1.0, 1.0)
    """Voxel size along (z, y, x)."""
    origin_mm: Vector = (0.0, 0.0, 0.0)
    """RAS position (x, y, z) of the centre of voxel (0, 0, 0)."""
    direction: tuple[Vector, Vector, Vector] = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    dimension: int = 3
    """2 when the file holds a single plane; the array still has three axes with shape[0] == 1."""

    def __post_init__(self) -> None:
        self._take("shape", lambda shape: tuple(operator.index(n) for n in shape), "whole numbers of voxels")
        self._take("spacing_mm", _vector, "numbers in mm")
        self._take("origin_mm", _vector, "numbers in mm")
        self._take("direction", lambda rows: tuple(map(_vector, rows)), "rows of three numbers")
        if min(self.shape) < 1:
            raise ImageError(f"A volume needs three axes of at least one voxel, found shape {self.shape}.")
        if not all(0 < s < math.inf for s in self.spacing_mm):
            raise ImageError(
                f"Voxel sizes must be positive numbers in mm, found {self.spacing_mm}; correct the image header."
            )
        if not all(map(math.isfinite, self.origin_mm)):
            raise ImageError(f"The origin of a grid must be finite, found {self.origin_mm}; correct the image header.")
        if not _are_axes(self.direction):
            raise ImageError(
                f"The direction of a grid needs three rows of three numbers whose columns are unit vectors that differ, "
                f"found {self.direction}; correct the image header."
            )
        if self.dimension not in (2, 3) or (self.dimension == 2 and self.shape[0] != 1):
            raise ImageError(
                f"A grid has 3 dimensions, or 2 and one slice, found {self.dimension} and shape {self.shape}; correct it."
            )

    def _take(self, name: str, convert: Callable[[Any], tuple], what: str) -> None:
        """Make a field of the record, which is frozen for everyone else, a tuple of Python's own numbers."""
        value = getattr(self, name)
        try:
            taken = convert(value)
        except (TypeError, ValueError):
            taken = ()
        if len(taken) != 3:
            raise ImageError(
                f"The {name} of a grid should be three {what}, found {value!r:.60}; correct the image header."
            )
        object.__setattr__(self, name, taken)

    @classmethod
    def from_lps(cls, size, spacing, origin, direction, dimension: int = 3) -> Geometry:
        """From SimpleITK's values: size, spacing, origin in (x, y, z) order and row-major direction, all LPS."""
        rows = _LPS_TO_RAS @ np.asarray(direction, float).reshape(3, 3)
        return cls(
            shape=tuple(int(n) for n in reversed(size)),
            spacing_mm=tuple(float(s) for s in reversed(spacing)),
            origin_mm=_vector(_LPS_TO_RAS @ np.asarray(origin, float)),
            direction=tuple(_vector(row) for row in rows),
            dimension=dimension,
        )

    @classmethod
    def from_ijk_to_ras(cls, shape, matrix) -> Geometry:
        """From a 4×4 affine (x, y, z index → RAS mm), as NIfTI and Slicer give it.

        Raises ImageError for a voxel size of 0.
        """
        matrix = np.asarray(matrix, float)
        spacing = np.linalg.norm(matrix[:3, :3], axis=0)
        if not np.all(spacing > 0):
            raise ImageError("The image header gives a voxel size of 0 mm; correct the image header.")
        direction = matrix[:3, :3] / spacing
        return cls(
            shape=tuple(int(n) for n in shape),
            spacing_mm=_vector(spacing[::-1]),
            origin_mm=_vector(matrix[:3, 3]),
            direction=tuple(_vector(row) for row in direction),
        )

    def to_lps(self) -> tuple[tuple, tuple, tuple]:
        """(spacing, origin, direction) for SimpleITK: (x, y, z) order, LPS, direction row-major with 9 entries."""
        rows = _LPS_TO_RAS @ np.asarray(self.direction)
        origin = _LPS_TO_RAS @ np.asarray(self.origin_mm)
        return tuple(reversed(self.spacing_mm)), _vector(origin), tuple(float(v) for v in rows.ravel())

    @property
    def ijk_to_ras(self) -> np.ndarray:
        """4×4 matrix from voxel index (x, y, z) to RAS position in mm."""
        matrix = np.eye(4)
        matrix[:3, :3] = np.asarray(self.direction) * np.asarray(self.spacing_mm[::-1])
        matrix[:3, 3] = self.origin_mm
        return matrix

    def world(self, zyx) -> np.ndarray:
        """RAS positions (N, 3) in mm of voxel indices (N, 3) given as (z, y, x)."""
        indices = np.atleast_2d(np.asarray(zyx, float))[:, ::-1]
        return indices @ self.ijk_to_ras[:3, :3].T + self.ijk_to_ras[:3, 3]

    def voxel(self, ras) -> np.ndarray:
        """Continuous voxel indices (N, 3) as (z, y, x) of RAS positions (N, 3) in mm."""
        offset = np.atleast_2d(np.asarray(ras, float)) - self.ijk_to_ras[:3, 3]
        return (offset @ np.linalg.inv(self.ijk_to_ras[:3, :3]).T)[:, ::-1]

    @property
    def is_perpendicular(self) -> bool:
        """Whether the axes are perpendicular to each other, as far as headers of single precision tell."""
        return self.shear < _SHEAR

    @property
    def shear(self) -> float:
        """The largest cosine between two axes; 0 when all are perpendicular."""
        cosines = np.asarray(self.direction).T @ np.asarray(self.direction)
        return float(np.abs(cosines - np.diag(np.diag(cosines))).max())

    @property
    def voxel_volume_ml(self) -> float:
        """Volume of one voxel in millilitres."""
        return abs(float(np.linalg.det(self.ijk_to_ras[:3, :3]))) / 1000.0

    def cropped(self, start: Shape, shape: Shape) -> Geometry:
        """The same grid restricted to `shape` voxels from voxel `start`, both (z, y, x)."""
        return replace(self, shape=tuple(int(n) for n in shape), origin_mm=_vector(self.world(start)[0]))

    def same_grid(self, other: Geometry, tolerance_mm: float = 1e-3) -> bool:
        """Whether both grids have the same voxels at the same places, corner for corner, within `tolerance_mm`."""
        return self.shape == other.shape and self.corner_distance_mm(other) <= tolerance_mm

    def corner_distance_mm(self, other: Geometry) -> float:
        """Largest distance in mm between corresponding corners of two grids of the same shape."""
        corners = np.array(np.meshgrid(*[(0, n - 1) for n in self.shape])).reshape(3, -1).T
        return float(np.linalg.norm(self.world(corners) - other.world(corners), axis=1).max())


def _are_axes(rows: tuple[tuple[float, ...], ...]) -> bool:
    """Whether the columns are unit vectors, as far as headers are exact, that do not lie in one plane."""
    if any(len(row) != 3 for row in rows):
        return False
    (a, b, c), (d, e, f), (g, h, i) = rows
    lengths = (a * a + d * d + g * g, b * b + e * e + h * h, c * c + f * f + i * i)
    volume = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)
    return all(abs(length - 1) < _ROUNDING for length in lengths) and abs(volume) > _ROUNDING


def _vector(values) -> Vector:
    return tuple(float(v) for v in values)
