"""NIfTI files by nibabel, where SimpleITK changes values without a word, and refuses or straightens axes that are askew."""

from __future__ import annotations

import importlib.util
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import ImageError
from ..geometry import HARDLY_ASKEW, Geometry
from ..packages import require_package
from ..records import written_whole
from .refusals import require_few_axes, unreadable

NIFTI_ENDINGS = (".nii", ".nii.gz")
_MM = {1: 1000.0, 3: 0.001}
"""Millimetres of NIfTI's unit codes for metres and micrometres; nibabel leaves it to its callers."""


def has_nibabel() -> bool:
    """Whether nibabel is installed; Slicer's own Python may lack it."""
    return importlib.util.find_spec("nibabel") is not None


def float_voxels(path: Path) -> np.ndarray | None:
    """The voxels (C, Z, Y, X) of a NIfTI file of floating-point type; None for any other file.

    SimpleITK silently turns NaN and infinity in NIfTI files into 0; nibabel keeps them, so that they can be refused.
    """
    if not has_nibabel():
        return None
    import nibabel

    try:
        volume = nibabel.load(path)
        if volume.get_data_dtype().kind != "f" or not 2 <= volume.ndim <= 4:
            return None
        array = np.asanyarray(volume.dataobj).T
    except _damage():
        return None  # SimpleITK reads it, or says what is wrong
    return array[(None,) * max(0, 4 - array.ndim)]


def read_nifti(path: Path, to_ras: bool = False) -> tuple[np.ndarray, Geometry]:
    """The voxels (C, Z, Y, X) and their grid, which may be sheared; with `to_ras` turned to the nearest RAS axes.

    Raises ImageError.
    """
    import nibabel

    volume = _opened(path)
    try:
        volume = nibabel.as_closest_canonical(volume) if to_ras else volume
        array = np.asanyarray(volume.dataobj)
    except _damage() as error:
        raise unreadable(path) from error
    require_real(array, path)
    if array.dtype.kind not in "biuf":  # colours
        raise unreadable(path)
    array = array.reshape(array.shape + (1,) * (3 - array.ndim))
    channels = np.moveaxis(array, -1, 0) if array.ndim == 4 else array[None]
    return channels.transpose(0, 3, 2, 1), _grid(volume)


def require_real(array: np.ndarray, path: Path) -> None:
    """Raises ImageError for complex voxels, of which float32 and label maps would keep the real part alone."""
    if np.iscomplexobj(array):
        raise ImageError(
            f"{path} should hold real numbers, found complex ones; save their magnitude (or real part) as an image."
        )


def nifti_geometry(path: Path) -> Geometry:
    """The grid, which may be sheared, from the header alone; raises ImageError."""
    return _grid(_opened(path))


@dataclass(frozen=True)
class NibabelsPlace:
    """Where nibabel sees a volume, which need not be where SimpleITK does."""

    ijk_to_ras: np.ndarray
    """4×4, from voxel index (x, y, z) to RAS position in mm."""
    forms: str
    """The parts of the header that tell it, for people."""


def nibabels_place(path: Path) -> NibabelsPlace | None:
    """Where nibabel sees a NIfTI volume, by its header; None for a file that it does not read or that is no NIfTI.

    None too for a header that tells no place at all, which every program is free to guess.
    """
    import nibabel

    try:
        volume = nibabel.load(path)
    except _damage():
        return None
    if not isinstance(volume, nibabel.Nifti1Pair):
        return None
    header = volume.header
    if not (header["sform_code"] or header["qform_code"]):
        return None
    sizes = " × ".join(f"{size:.4g}" for size in header["pixdim"][3:0:-1])
    codes = f"sform code {int(header['sform_code'])}, qform code {int(header['qform_code'])}"
    return NibabelsPlace(_ijk_to_ras_mm(volume), f"{codes}, voxel size {sizes} (z, y, x)")


def _opened(path: Path):
    require_package("nibabel")
    import nibabel

    try:
        volume = nibabel.load(path)
    except _damage() as error:
        raise unreadable(path) from error
    require_few_axes(path, volume.ndim)
    return volume


def _damage() -> tuple[type[Exception], ...]:
    """What a damaged file makes nibabel raise."""
    from nibabel.filebasedimages import ImageFileError
    from nibabel.orientations import OrientationError
    from nibabel.spatialimages import HeaderDataError

    return OSError, EOFError, ValueError, OverflowError, zlib.error, ImageFileError, HeaderDataError, OrientationError


def _grid(volume) -> Geometry:
    shape = (*volume.shape, 1, 1)[:3]
    return Geometry.from_ijk_to_ras(shape[::-1], _ijk_to_ras_mm(volume))


def _ijk_to_ras_mm(volume) -> np.ndarray:
    matrix = np.array(volume.affine)
    matrix[:3] *= _MM.get(int(volume.header.get("xyzt_units", 0)) & 7, 1.0)
    return matrix


def write_nifti(path: Path, array: np.ndarray, geometry: Geometry) -> None:
    """Write one channel (Z, Y, X), whole or not at all; raises MissingPackageError, StorageError.

    The grid becomes the file's sform, where SimpleITK would write axes that it has made perpendicular. Axes that are
    hardly askew become its qform too, made perpendicular: from that SimpleITK reads what it would refuse by the sform.
    """
    require_package("nibabel")
    import nibabel

    volume = nibabel.Nifti1Image(array.transpose(2, 1, 0), geometry.ijk_to_ras)
    volume.header.set_xyzt_units("mm")
    if geometry.shear < HARDLY_ASKEW:
        volume.set_sform(geometry.ijk_to_ras, 1)
        volume.set_qform(geometry.ijk_to_ras, 1, strip_shears=True)
    with written_whole(path) as temporary:
        nibabel.save(volume, temporary)
