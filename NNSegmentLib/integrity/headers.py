"""Findings about headers that do not tell one thing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..geometry import Geometry
from ..grids.two_places import two_places
from ..task import Case
from .findings import WARNING, Finding


def place_finding(case: Case, path: Path, grid: Geometry) -> Iterator[Finding]:
    """A NIfTI file that other programs see elsewhere than at `grid`, where SimpleITK, nnU-Net and Slicer see it."""
    found = two_places(path, grid)
    if found:
        yield Finding(
            WARNING,
            case.id,
            "one place",
            f"sform, qform and voxel size of {path.name} that tell one place",
            f"places {found.apart_mm:.3g} mm apart, one for Slicer and nnU-Net, one for programs with nibabel "
            f"({found.forms})",
            "look at the image in Slicer: if it lies right there, save it anew from there, else correct its header",
        )
