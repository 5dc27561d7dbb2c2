"""A preprocessed case, and the way back from the network's grid to the input's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ..geometry import Geometry
from ..labels import Region

OUTSIDE = -1
"""Label of unlabelled voxels outside the non-zero mask, and of all that lies beyond a case."""
ANNOTATED: Region = (-1,)
"""Key of `PreparedCase.foreground` for all voxels that are not 'ignore', present only with an ignore label."""


@dataclass(frozen=True)
class Placement:
    """Where a prepared array lies in the input. Shapes and spacings are in transposed order (z, y, x)."""

    geometry: Geometry
    """The input's own grid."""
    transpose_forward: tuple[int, int, int]
    """File axis that becomes axis 0, 1, 2 (z, y, x)."""
    shape_before_crop: tuple[int, int, int]
    """Voxels of the input."""
    crop_start: tuple[int, int, int]
    """First voxel of the crop box in the input."""
    crop_shape: tuple[int, int, int]
    """Voxels of the crop box, before resampling."""
    original_spacing_mm: tuple[float, float, float]
    """Voxel size of the input."""
    spacing_mm: tuple[float, float, float]
    """Voxel size of the prepared array."""


@dataclass(frozen=True)
class PreparedCase:
    """One case on the network's grid."""

    id: str
    image: np.ndarray
    """(C, Z, Y, X) float32, normalised."""
    labels: np.ndarray | None
    """(Z, Y, X) int8 or int16, −1 outside the non-zero mask; None without a label file."""
    placement: Placement
    foreground: Mapping[Region, np.ndarray] = field(default_factory=dict)
    """Target → voxel indices (N, 3) as (z, y, x), for foreground oversampling."""
