"""Where voxels are in the patient: the coordinate convention of the project is written here and nowhere else.

Arrays are indexed (z, y, x), channels first (C, Z, Y, X). Spacing is in mm in array order (z, y, x).
The world is RAS (x to the patient's right, y to the front, z up) as in 3D Slicer. The file libraries
differ: SimpleITK and DICOM speak LPS, so x and y change sign exactly once, in `from_lps` and `to_lps`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .errors import ImageError

Vector = tuple[float, float, float]
Shape = tuple[int, int, int]
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])


@dataclass(frozen=True)
class Geometry:
    """The grid of a volume: how many voxels, how large, and where.

    `direction` is a 3×3 matrix given as three rows; its columns are the RAS unit vectors along which the
    x, y and z index (in this order) grow. A negative determinant (left-handed grid) is allowed.
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
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise ImageError(f"A volume needs three axes of at least one voxel, found shape {self.shape}.")
        if not all(np.isfinite(s) and s > 0 for s in self.spacing_mm):
            raise ImageError(
                f"Voxel sizes must be positive numbers in mm, found {self.spacing_mm}; correct the image header."
            )

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

        Raises ImageError when the axes are not perpendicular (a sheared volume).
        """
        matrix = np.asarray(matrix, float)
        spacing = np.linalg.norm(matrix[:3, :3], axis=0)
        if not np.all(spacing > 0):
            raise ImageError("The image header gives a voxel size of 0 mm; correct the image header.")
        direction = matrix[:3, :3] / spacing
        if np.abs(direction.T @ direction - np.eye(3)).max() > 1e-3:
            raise ImageError(
                "The image axes are not perpendicular (a sheared, gantry-tilted volume); "
                "resample it onto a regular grid first."
            )
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
    def voxel_volume_ml(self) -> float:
        """Volume of one voxel in millilitres."""
        return float(np.prod(self.spacing_mm)) / 1000.0

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


def _vector(values) -> Vector:
    return tuple(float(v) for v in values)
