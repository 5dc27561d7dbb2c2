"""NIfTI headers whose sform, qform and voxel size disagree, so that programs see the volume in two places.

We follow SimpleITK, as nnU-Net and Slicer do; nibabel and the programs built upon it are the other party.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import some
from ..geometry import Geometry
from ..image import file_ending
from ..image_files.nifti import NIFTI_ENDINGS, has_nibabel, nibabels_place
from ..machine.memory import Say

_NOISE = 1e-3
"""Of an axis, as a share of its voxel size: of rotations that were rounded to quaternions."""
_ORIGIN_NOISE = 0.01
"""In voxels."""


@dataclass(frozen=True)
class TwoPlaces:
    """A header that is read in two ways."""

    apart_mm: float
    """Largest distance between the two places of a corner."""
    forms: str
    """What the header tells, for people."""


def two_places(path: Path, grid: Geometry) -> TwoPlaces | None:
    """How nibabel's reading of a NIfTI header differs from `grid`, that of the same file by `read_geometry`.

    None where they agree but for rounding, for headers that tell no place, for planes, other files, and without nibabel.
    """
    if file_ending(path) not in NIFTI_ENDINGS or grid.dimension != 3 or not has_nibabel():
        return None
    other = nibabels_place(path)
    if other is None:
        return None
    difference = np.abs(other.ijk_to_ras - grid.ijk_to_ras) / np.array([*grid.spacing_mm[::-1], min(grid.spacing_mm)])
    if (difference[:3, :3] < _NOISE).all() and (difference[:3, 3] < _ORIGIN_NOISE).all():
        return None
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in grid.shape[::-1]], [1])).reshape(4, -1)
    apart = np.linalg.norm(((other.ijk_to_ras - grid.ijk_to_ras) @ corners)[:3], axis=0)
    return TwoPlaces(float(apart.max()), other.forms)


def tell_two_places(found: Mapping[str, TwoPlaces], say: Say) -> None:
    """Name the files whose headers tell two places."""
    if found:
        names = [f"{name} ({places.apart_mm:.3g} mm apart)" for name, places in found.items()]
        say(
            f"The headers of {some(names)} tell two places, since sform, qform and voxel size disagree: "
            "predictions lie where Slicer and nnU-Net show the image, and other programs may show both elsewhere; set "
            "both forms to one place."
        )
