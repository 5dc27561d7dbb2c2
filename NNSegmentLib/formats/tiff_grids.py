"""The grid of cases with TIFF volumes, of which nnU-Net reads the voxel size from a JSON file beside them and no place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from ..geometry import Geometry
from ..image import TIFF_ENDINGS, file_ending, read_geometry
from ..image_files.tiff import unused_spacing
from ..records import write_json
from .source import SourceCase

_SAME_SIZE = 0.01
"""Of voxels; headers round."""
_MICROMETRES_IN_MM = 1000.0


def case_grid(case: SourceCase) -> Geometry | None:
    """The grid of a case's image and labels where one of them is a TIFF volume; None for all others. Raises ImageError.

    A file that says where it lies speaks for the TIFF, unless the TIFF's header tells another voxel size.
    """
    if case.volume or not case.images:
        return None
    image = read_geometry(case.images[0])
    labels = read_geometry(case.labels) if case.labels else None
    if _is_tiff_volume(case.images[0], image):
        header = unused_spacing(case.images[0])
        image = replace(image, spacing_mm=header) if header else image
        placed = labels is not None and file_ending(case.labels) not in TIFF_ENDINGS and labels.shape == image.shape
        is_told = image.spacing_mm != (1.0, 1.0, 1.0)
        same_size = placed and _have_same_size(labels, image)
        return labels if placed and (same_size or not is_told) else image
    is_beside = labels is not None and _is_tiff_volume(case.labels, labels) and labels.shape == image.shape
    return image if is_beside else None


def _have_same_size(placed: Geometry, told: Geometry) -> bool:
    """Whether a file in mm has the voxels of a TIFF's header in µm; microscopes' files often hold µm for mm."""
    sizes = np.multiply.outer((1.0, _MICROMETRES_IN_MM), placed.spacing_mm)
    return any(np.allclose(size, told.spacing_mm, rtol=_SAME_SIZE) for size in sizes)


def note_spacing(path: Path, grid: Geometry | None) -> None:
    """Write the voxel size where nnU-Net reads it, unless a file is there or there is nothing to say."""
    if grid is not None and grid.dimension == 3 and grid.spacing_mm != (1.0, 1.0, 1.0) and not path.exists():
        write_json(path, {"spacing": grid.spacing_mm})


def _is_tiff_volume(path: Path, geometry: Geometry) -> bool:
    return file_ending(path) in TIFF_ENDINGS and geometry.dimension == 3
