"""CASE.npz and CASE.pkl: what nnU-Net needs of a prediction to average it with others and write the label map."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np

from .array_files import DAMAGED
from .errors import ImageError
from .geometry import Geometry
from .records import written_whole

PROBABILITIES = "probabilities"
"""The name of the array in CASE.npz, as nnU-Net writes it."""


def load_probabilities(path: Path, n_outputs: int) -> np.ndarray:
    """`probabilities` (n_outputs, Z, Y, X) of a CASE.npz; raises ImageError."""
    try:
        with Path(path).open("rb") as handle, np.load(handle, allow_pickle=False) as file:
            array = file[PROBABILITIES]
    except DAMAGED as error:
        raise ImageError(
            f"{path} should hold an array named {PROBABILITIES}; it is damaged or something else, predict the case again."
        ) from error
    if array.ndim != 4 or len(array) != n_outputs or not array.size or array.dtype.kind != "f":
        raise ImageError(
            f"{path} should hold {n_outputs} volumes of probabilities, found {array.dtype!s:.20} of shape {array.shape}; "
            "predict the case again."
        )
    return array


def write_probabilities(path: Path, probabilities: np.ndarray, grid: Geometry, file_grid: Geometry) -> None:
    """Write CASE.npz as nnU-Net does, float32 (n_outputs, Z, Y, X) on `grid`, compressed, and CASE.pkl beside it.

    `file_grid` is the image file's own grid, which differs where the reader turned the image. CASE.pkl comes first,
    so that the presence of CASE.npz means both. Raises StorageError.
    """
    with written_whole(path.with_suffix(".pkl")) as temporary:
        temporary.write_bytes(pickle.dumps(_properties(grid, file_grid)))
    with written_whole(path) as temporary:
        np.savez_compressed(temporary, **{PROBABILITIES: probabilities.astype(np.float32, copy=False)})


def _properties(grid: Geometry, file_grid: Geometry) -> dict:
    """The entries from which any of nnU-Net's writers restores a label map's place; built-in types only.

    A writer looks at its own entry alone, so those of SimpleITK and nibabel stand side by side.
    """
    spacing, origin, direction = grid.to_lps()
    if grid.dimension == 2:
        plane = {"spacing": spacing[:2], "origin": origin[:2], "direction": (*direction[:2], *direction[3:5])}
        return {"spacing": list(grid.spacing_mm), "sitk_stuff": plane}
    return {
        "spacing": list(grid.spacing_mm),
        "sitk_stuff": {
            "spacing": spacing,
            "origin": origin,
            "direction": direction,
            "original_orientation": _orientation(file_grid),
        },
        "nibabel_stuff": {
            "original_affine": file_grid.ijk_to_ras.tolist(),
            "reoriented_affine": grid.ijk_to_ras.tolist(),
        },
    }


def _orientation(grid: Geometry) -> str:
    """Where the x, y and z axes point, as three letters like 'LPS'."""
    import SimpleITK as sitk

    return sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(grid.to_lps()[2])
