"""The packages that the work is done with, and what is said where one of them is not installed."""

from __future__ import annotations

import importlib.util
import re
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
INSTALL = f"pip install {' '.join(sorted(PACKAGES, key=lambda name: name != 'torch'))}"
"""What gives a Python all that the work needs; the library itself comes from where we are."""


OLDEST_TORCH = (2, 6)
"""Before that version files of weights could run code (CVE-2025-32434)."""


def release_of(version: str) -> tuple[int, ...]:
    """The first two numbers of a version: (2, 6) of '2.6.0a0+df5bbc09d1.nv24.12'."""
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])


def require_package(name: str) -> None:
    """Raises MissingPackageError when the package is not installed; it is not imported for that."""
    if importlib.util.find_spec(name) is None:
        raise missing_package(name)


def missing_package(name: str) -> MissingPackageError:
    """What to say of one of `PACKAGES` that is not installed."""
    return MissingPackageError(
        f"Expected the package {name} for {PACKAGES[name]}, found none in {sys.executable}; install what is missing with '{INSTALL}', "
        "in 3D Slicer with the button Install of the module NNSegment ('nnsegment doctor' lists it).",
        name=name,
    )
