"""TIFF files as nnU-Net reads them: with tifffile, which keeps the numbers of every type and tells a stack from colours.

SimpleITK turns stacks of three or four slices, 64-bit and 1-bit files into colours of 8 bits, or refuses them. It reads
only what is compressed in a way that tifffile cannot undo by itself, and is believed only where it finds the same grid.
"""

from __future__ import annotations

import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from ..errors import ImageError
from ..records import read_json
from .itk_paths import path_to_read


@dataclass(frozen=True)
class TiffLayout:
    """What the header of a TIFF tells of its first image."""

    shape: tuple[int, ...]
    axes: str
    """A letter for each axis: X, Y, Z, samples (S), channels (C), times (T), or of unknown meaning (Q, I)."""
    kind: np.dtype
    has_alpha: bool
    """Whether the last colour is declared to be opacity."""

    @property
    def samples(self) -> int:
        """Colours of each voxel."""
        return self.shape[-1] if self.axes.endswith("S") else 1

    @property
    def spatial(self) -> tuple[int, ...]:
        """(y, x) or (z, y, x), as nnU-Net takes them."""
        return self.shape[:-1] if self.axes.endswith("S") else self.shape

    @property
    def leading_channels(self) -> int:
        """What nnU-Net takes for slices although the header calls it channels or colours; 0 for anything else.

        tifffile writes such headers for stacks, too, so they count only where something else tells that it is a plane.
        """
        return self.shape[0] if len(self.spatial) == 3 and self.samples == 1 and self.axes[0] in "CS" else 0


def read_tiff(path: Path) -> tuple[np.ndarray, bool]:
    """The voxels (C, Z, Y, X) in the file's own number type, and whether it holds a single plane; raises ImageError."""
    layout = tiff_layout(path)
    array = _voxels(path, layout.shape, layout.kind)
    channels = np.moveaxis(array, -1, 0) if layout.axes.endswith("S") else array[None]
    plane = channels.ndim == 3
    return (channels[:, None] if plane else channels), plane


def tiff_shape(path: Path) -> tuple[tuple[int, int, int], bool]:
    """Voxels along (z, y, x), and whether the file holds a single plane, without reading them; raises ImageError."""
    spatial = tiff_layout(path).spatial
    return (1, *spatial)[-3:], len(spatial) == 2


def tiff_spacing(path: Path) -> tuple[float, float, float]:
    """(z, y, x) in mm from nnU-Net's sidecar CASE.json (without the channel suffix), else 1 mm; raises ImageError."""
    sidecar = _sidecar(path)
    return _spacing_in(sidecar) if sidecar else (1.0, 1.0, 1.0)


def _sidecar(path: Path) -> Path | None:
    candidates = (path.with_name(name + ".json") for name in (path.stem, path.stem[:-5]))
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def _spacing_in(sidecar: Path) -> tuple[float, float, float]:
    values = read_json(sidecar, ImageError)
    spacing = values.get("spacing") if isinstance(values, dict) else None
    if not isinstance(spacing, list) or len(spacing) != 3 or not all(type(s) in (int, float) for s in spacing):
        raise ImageError(
            f'{sidecar} should tell the voxel size of a TIFF in mm like {{"spacing": [z, y, x]}}, found {spacing!r:.60}; '
            "correct it."
        )
    return tuple(float(s) for s in spacing)


def header_spacing(path: Path) -> tuple[float, float, float] | None:
    """(z, y, x) that the header of an ImageJ or OME stack tells, in µm where its unit is known; None where it tells none.

    Reading goes by nnU-Net's sidecar alone. A header that cannot be understood tells nothing.
    """
    try:
        with _tifffile().TiffFile(path) as file:
            if file.is_ome:
                spacing = _ome_spacing(file.ome_metadata)
            else:
                spacing = _imagej_spacing(file.imagej_metadata, file.pages[0].tags) if file.is_imagej else None
    except _DAMAGE:
        return None
    return spacing if spacing and all(math.isfinite(s) and s > 0 for s in spacing) else None


def unused_spacing(path: Path) -> tuple[float, float, float] | None:
    """The voxel size that the header of a stack tells and nobody reads, as no sidecar lies beside it; raises ImageError."""
    if tiff_shape(path)[1] or _sidecar(path):
        return None
    spacing = header_spacing(path)
    return None if spacing == (1.0, 1.0, 1.0) else spacing


def _ome_spacing(text: str) -> tuple[float, ...] | None:
    pixels = next((e for e in ElementTree.fromstring(text).iter() if e.tag.endswith("Pixels")), None)
    values = [pixels.get(f"PhysicalSize{axis}") for axis in "ZYX"] if pixels is not None else [None]
    if None in values:
        return None
    units = [pixels.get(f"PhysicalSize{axis}Unit", "µm") for axis in "ZYX"]
    if len(set(units)) > 1 and not all(unit in _MICROMETRES for unit in units):
        return None
    return tuple(float(value) * _MICROMETRES.get(unit, 1.0) for value, unit in zip(values, units, strict=True))


def _imagej_spacing(described: dict, tags) -> tuple[float, ...] | None:
    """ImageJ notes voxels per unit in the plane, and leaves out a distance of slices that is 1."""
    unit = str(described.get("unit", "pixel"))
    if "spacing" not in described and unit in _UNITS_OF_NOTHING:
        return None
    across, pixels = zip(*[tags[name].value[::-1] for name in ("YResolution", "XResolution")], strict=True)
    spacing = (abs(float(described.get("spacing", 1.0))), across[0] / pixels[0], across[1] / pixels[1])
    return tuple(size * _MICROMETRES.get(unit, 1.0) for size in spacing)


def tiff_layout(path: Path) -> TiffLayout:
    """The axes of the file's first image; raises ImageError for one that is no plane or volume."""
    try:
        with _tifffile().TiffFile(path) as file:
            series = file.series[0]
            extra = series.keyframe.extrasamples
            has_alpha = bool(extra) and int(extra[-1]) in _ALPHA
            layout = TiffLayout(tuple(series.shape), series.axes, series.dtype, has_alpha)
    except _DAMAGE as error:
        raise _damaged(path) from error
    _require_plane_or_volume(path, layout)
    return layout


def _require_plane_or_volume(path: Path, layout: TiffLayout) -> None:
    lengths = dict(zip(layout.axes, layout.shape, strict=True))
    if "T" in lengths and len(layout.spatial) > 3:
        raise _several_times(path, layout)
    if "C" in lengths and len(layout.spatial) > 3:
        raise ImageError(
            f"{path} should hold one volume of one time and channel, found {lengths['C']} channels (axes {layout.axes}); "
            "split them (in ImageJ with Image > Color > Split Channels) and save them as CASE_0000.tif, CASE_0001.tif, …"
        )
    kind = layout.kind
    if kind is None or kind.kind not in "biuf" or len(layout.spatial) not in (2, 3) or not min(layout.shape):
        raise ImageError(
            f"{path} should hold a plane (y, x) or a volume (z, y, x) of real numbers, found the axes {layout.axes} with "
            f"{layout.shape} entries; save one volume of one time and channel per file."
        )


def require_one_time(path: Path) -> None:
    """Raises ImageError for a stack whose header calls its planes times; nnU-Net takes them for slices."""
    layout = tiff_layout(path)
    if "T" in layout.axes:
        raise _several_times(path, layout)


def _several_times(path: Path, layout: TiffLayout) -> ImageError:
    times = layout.shape[layout.axes.index("T")]
    return ImageError(
        f"{path} should hold one volume of one time, found {times} times (axes {layout.axes}); save each time as a file "
        "of its own, or, if they are slices, correct slices and frames with Image > Properties in ImageJ."
    )


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
           AssertionError, struct.error, zlib.error, ElementTree.ParseError)  # fmt: skip
"""What a damaged TIFF makes tifffile raise."""
_UNITS_OF_NOTHING = ("", "pixel", "pixels", "inch", "inches")
"""What ImageJ notes for pictures that nobody has measured; inches are the dots per inch of a screen."""
_MICROMETRES = {
    "nm": 1e-3, "um": 1.0, "µm": 1.0, "μm": 1.0, "\\u00B5m": 1.0, "micron": 1.0, "microns": 1.0, "mm": 1e3, "cm": 1e4, "m": 1e6
}  # fmt: skip
"""Units of headers in µm; the letter of µm has two codes, and ImageJ also writes the code itself."""
_ALPHA = (1, 2)
"""TIFF's numbers for a colour that is opacity."""
