"""The packages that the work is done with, and what is said where one of them is not installed."""

from __future__ import annotations

import importlib.util
import sys

from .errors import MissingPackageError

PACKAGES = {
    "numpy": "arrays",
    "scipy": "splines",
    "SimpleITK": "image files",
    "nibabel": "NIfTI headers",
    "tifffile": "TIFF files",
    "torch": "training and prediction",
    "batchgenerators": "the reference augmentation",
    "psutil": "memory and processes",
    "matplotlib": "curves and reports",
    "tqdm": "progress bars",
}
"""What each is for."""


def require_package(name: str) -> None:
    """Raises MissingPackageError when the package is not installed; it is not imported for that."""
    if importlib.util.find_spec(name) is None:
        raise missing_package(name)


def missing_package(name: str) -> MissingPackageError:
    """What to say of one of `PACKAGES` that is not installed."""
    return MissingPackageError(
        f"Expected the package {name} for {PACKAGES[name]}, found none in {sys.executable}; install what is missing with "
        "\"pip install 'nnsegment[train]'\", in 3D Slicer with the button Install of the module NNSegment ('nnsegment "
        "doctor' lists it).",
        name=name,
    )
