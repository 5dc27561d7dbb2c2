"""Do labels lie on the grid of their image, and if not, can they be carried over?"""

from __future__ import annotations

import numpy as np

from ..geometry import Geometry
from ..image import LabelMap


def foreground_inside(labels: LabelMap, image: Geometry) -> bool:
    """Whether the box around all foreground lies inside the image, one voxel of tolerance, by world coordinates."""
    box = _foreground_box(labels.array)
    if box is None:
        return True
    corners = np.array(np.meshgrid(*box, indexing="ij")).reshape(3, -1).T
    voxels = image.voxel(labels.geometry.world(corners))
    return bool((voxels >= -1.5).all() and (voxels <= np.array(image.shape) + 0.5).all())


def carried_over(labels: LabelMap, grid: Geometry) -> np.ndarray:
    """The labels (Z, Y, X) on another grid: each voxel takes the nearest label in the world, 0 outside."""
    import SimpleITK as sitk

    reference = _sitk_image(np.zeros(grid.shape, labels.array.dtype), grid)
    moving = _sitk_image(labels.array, labels.geometry)
    resampled = sitk.Resample(moving, reference, sitk.Transform(3, sitk.sitkIdentity), sitk.sitkNearestNeighbor, 0)
    return sitk.GetArrayFromImage(resampled)


def foreground_ml(labels: LabelMap) -> float:
    """Volume of all voxels that are not 0, in millilitres."""
    return int(np.count_nonzero(labels.array)) * labels.geometry.voxel_volume_ml


def described(geometry: Geometry) -> str:
    """The grid in words for a finding."""
    spacing = in_words(geometry.spacing_mm)
    origin = ", ".join(f"{o:.4g}" for o in geometry.origin_mm)
    shape = " × ".join(str(n) for n in geometry.shape)
    return f"{shape} voxels (z, y, x) of {spacing} mm at ({origin})"


def in_words(spacing: tuple[float, ...]) -> str:
    """A voxel size (z, y, x) for people."""
    return " × ".join(f"{s:.4g}" for s in spacing)


def _sitk_image(array: np.ndarray, geometry: Geometry):
    import SimpleITK as sitk

    volume = sitk.GetImageFromArray(np.ascontiguousarray(array))
    spacing, origin, direction = geometry.to_lps()
    volume.SetSpacing(spacing)
    volume.SetOrigin(origin)
    volume.SetDirection(direction)
    return volume


def _foreground_box(array: np.ndarray) -> list[tuple[int, int]] | None:
    """First and last index of foreground along each axis; None without foreground."""
    box = []
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        hit = np.flatnonzero(array.any(axis=others))
        if not len(hit):
            return None
        box.append((int(hit[0]), int(hit[-1])))
    return box
