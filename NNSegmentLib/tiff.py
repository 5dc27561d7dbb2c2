"""TIFF files as nnU-Net reads them: with tifffile, which keeps the numbers of every type and tells a stack from colours.

SimpleITK turns stacks of three or four slices, 64-bit and 1-bit files into colours of 8 bits, or refuses them. It reads
only what is compressed in a way that tifffile cannot undo by itself, and is believed only where it finds the same grid.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np

from .errors import ImageError
from .itk_paths import path_to_read
from .records import read_json

Axes = tuple[tuple[int, ...], str, np.dtype]


def read_tiff(path: Path) -> tuple[np.ndarray, bool]:
    """The voxels (C, Z, Y, X) in the file's own number type, and whether it holds a single plane; raises ImageError."""
    shape, axes, kind = _described(path)
    array = _voxels(path, shape, kind)
    channels = np.moveaxis(array, -1, 0) if axes.endswith("S") else array[None]
    plane = channels.ndim == 3
    return (channels[:, None] if plane else channels), plane


def tiff_shape(path: Path) -> tuple[tuple[int, int, int], bool]:
    """Voxels along (z, y, x), and whether the file holds a single plane, without reading them; raises ImageError."""
    shape, axes, _ = _described(path)
    spatial = shape[:-1] if axes.endswith("S") else shape
    return (1, *spatial)[-3:], len(spatial) == 2


def tiff_spacing(path: Path) -> tuple[float, float, float]:
    """(z, y, x) in mm from nnU-Net's sidecar CASE.json (without the channel suffix), else 1 mm; raises ImageError."""
    for name in (path.stem, path.stem[:-5]):
        sidecar = path.with_name(name + ".json")
        if sidecar.is_file():
            return _spacing_in(sidecar)
    return (1.0, 1.0, 1.0)


def _spacing_in(sidecar: Path) -> tuple[float, float, float]:
    values = read_json(sidecar, ImageError)
    spacing = values.get("spacing") if isinstance(values, dict) else None
    if not isinstance(spacing, list) or len(spacing) != 3 or not all(type(s) in (int, float) for s in spacing):
        raise ImageError(
            f'{sidecar} should tell the voxel size of a TIFF in mm like {{"spacing": [z, y, x]}}, found {spacing!r:.60}; '
            "correct it."
        )
    return tuple(float(s) for s in spacing)


def _described(path: Path) -> Axes:
    """Shape, axes and number type of the file's first series; raises ImageError for one that is no image."""
    try:
        with _tifffile().TiffFile(path) as file:
            series = file.series[0]
            shape, axes, kind = tuple(series.shape), series.axes, series.dtype
    except _DAMAGE as error:
        raise _damaged(path) from error
    if kind is None or kind.kind not in "biuf" or len(shape) - axes.endswith("S") not in (2, 3) or not min(shape):
        raise ImageError(
            f"{path} should hold a plane (y, x) or a volume (z, y, x) of real numbers, found the axes {axes} with "
            f"{shape} entries; save one volume of one time and channel per file."
        )
    return shape, axes, kind


def _voxels(path: Path, shape: tuple[int, ...], kind: np.dtype) -> np.ndarray:
    """The array of the first series, by whichever library undoes its compression."""
    try:
        array = _tifffile().imread(path)
    except _DAMAGE as error:
        array = _read_with_simpleitk(path)
        if array is None or array.shape != shape or array.dtype != kind:
            raise _damaged(path) from error
    return array


def _read_with_simpleitk(path: Path) -> np.ndarray | None:
    import SimpleITK as sitk

    try:
        with path_to_read(path) as plain:
            return sitk.GetArrayFromImage(sitk.ReadImage(plain))
    except RuntimeError:
        return None


def _tifffile():
    try:
        import tifffile
    except ImportError as error:
        raise ImageError(
            "TIFF files are read with the package tifffile; install it with 'pip install tifffile'."
        ) from error
    return tifffile


def _damaged(path: Path) -> ImageError:
    return ImageError(
        f"{path} cannot be read as an image; it may be damaged, incomplete, or compressed in a way that is not "
        "supported: save it again, uncompressed."
    )


_DAMAGE = (OSError, EOFError, ValueError, TypeError, LookupError, ArithmeticError, MemoryError, RuntimeError,
           AssertionError, struct.error, zlib.error)  # fmt: skip
"""What a damaged TIFF makes tifffile raise."""
