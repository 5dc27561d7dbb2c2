"""Image files: read as float32 arrays (C, Z, Y, X) or integer label maps (Z, Y, X), written in the input's format.

SimpleITK reads everything but TIFF; nibabel takes over for NIfTI files whose axes SimpleITK refuses or straightens.
All imports happen inside the functions, so that asking for help or reading a plan costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .errors import ImageError
from .geometry import HARDLY_ASKEW, Geometry
from .given import path_of, paths_of
from .grids.planes import PLANE_SPACING
from .image_files.completeness import require_complete
from .image_files.itk_paths import path_to_read, path_to_write
from .image_files.nifti import (
    NIFTI_ENDINGS,
    float_voxels,
    has_nibabel,
    nifti_geometry,
    read_nifti,
    require_real,
    write_nifti,
)
from .image_files.palettes import holds_colours, is_grey_with_alpha, palette_labels, without_grey_palette
from .image_files.refusals import require_few_axes, unreadable
from .image_files.text_headers import HEADER_TEXT, copy_with_voxels, require_sound_header
from .image_files.tiff import read_tiff, tiff_shape, tiff_spacing
from .labels import LARGEST_VALUE, number_type
from .records import TOO_LONG, ascii_name, copy_whole, is_too_long, move, working_folder, write_json, written_whole

FILE_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd", ".gipl", ".png", ".bmp", ".tif", ".tiff")
PLANE_ENDINGS = (".png", ".bmp")
"""Natural images: always one plane, spacing (999, 1, 1) as nnU-Net gives them."""
TIFF_ENDINGS = (".tif", ".tiff")
"""One plane, or a volume whose voxel size is in a JSON file beside it (nnU-Net's convention)."""
FLAT_ENDINGS = (*PLANE_ENDINGS, *TIFF_ENDINGS)
"""Files that do not say where their voxels are in the patient."""
READERS = {
    "NaturalImage2DIO": (".png", ".bmp", ".tif"),
    "SimpleITKIO": (".nii.gz", ".nrrd", ".mha", ".mhd", ".gipl"),
    "Tiff3DIO": (".tif", ".tiff"),
    "NibabelIO": (".nii", ".nii.gz"),
    "NibabelIOWithReorient": (".nii", ".nii.gz"),
    "SimpleITKIOWithReorient": (".nii.gz", ".nrrd", ".mha", ".gipl"),
}
"""nnU-Net's readers with their endings; in its order, the first that fits is taken."""
_LPS = ((-1.0, 0.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, 1.0))
"""The direction of files that tell none: along LPS, as in SimpleITK."""
REORIENTING_READERS = ("NibabelIOWithReorient", "SimpleITKIOWithReorient")


@dataclass(frozen=True)
class Image:
    """Voxels and where they are: `array` (C, Z, Y, X) float32 on the grid `geometry`."""

    array: np.ndarray
    geometry: Geometry

    def __post_init__(self) -> None:
        if self.array.ndim != 4 or self.array.shape[1:] != self.geometry.shape:
            raise ImageError(
                f"An image array has axes (C, Z, Y, X) matching its grid {self.geometry.shape}, "
                f"found shape {self.array.shape}."
            )


@dataclass(frozen=True)
class LabelMap:
    """One integer per voxel: `array` (Z, Y, X) on the grid `geometry`."""

    array: np.ndarray
    geometry: Geometry

    def __post_init__(self) -> None:
        if self.array.shape != self.geometry.shape:
            raise ImageError(
                f"A label map has axes (Z, Y, X) matching its grid {self.geometry.shape}, "
                f"found shape {self.array.shape}."
            )


def file_ending(path: Path | str) -> str:
    """The image ending of a file name, '.nii.gz' included; raises ImageError naming those supported."""
    name = Path(path).name.lower()
    for ending in FILE_ENDINGS:
        if name.endswith(ending):
            return ending
    raise ImageError(f"{Path(path).name} is no image file known here; expected one of {', '.join(FILE_ENDINGS)}.")


def read_image(paths: Sequence[Path | str] | Path | str, reader: str = "") -> Image:
    """Read one file per channel into one image (C, Z, Y, X) float32.

    A vector (RGB) or 4-D file gives several channels. All channels must lie on the grid of the first.
    `reader` is nnU-Net's reader name; those that re-orient (`REORIENTING_READERS`) turn the array to RAS.
    Raises ImageError for unreadable files and for channels of different size or spacing, SettingsError without a path.
    """
    paths = paths_of(paths, "an image file, or one for each channel")
    arrays, geometries = zip(*[read_array(path, reader) for path in paths], strict=True)
    for path, geometry in zip(paths[1:], geometries[1:], strict=True):
        _require_same_size(paths[0], geometries[0], path, geometry)
    joined = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
    return Image(np.ascontiguousarray(joined, dtype=np.float32), geometries[0])


def read_labels(path: Path | str, reader: str = "") -> LabelMap:
    """Read a label map (Z, Y, X); raises ImageError when values are not whole numbers or there are several channels."""
    path = path_of(path)
    array, geometry = read_label_array(path, reader)
    if len(array) != 1:
        raise ImageError(f"{path} should hold one label map, found {len(array)} channels; save it as a single one.")
    return LabelMap(whole_numbers(array[0], path), geometry)


def read_label_array(path: Path, reader: str = "") -> tuple[np.ndarray, Geometry]:
    """What `read_array` gives, but one channel of a picture with a palette: the numbers of its colours, or its greys."""
    array, geometry = read_array(path, reader)
    if is_coloured(path):
        labels = palette_labels(path)
        if labels is not None and labels.shape == array.shape[2:]:
            return labels[None, None], geometry
    return array, geometry


def is_coloured(path: Path) -> bool:
    """Whether a label file is a picture of colours or with a palette, by its header; other programs see colours there."""
    return file_ending(path) in PLANE_ENDINGS and holds_colours(path)


def whole_numbers(array: np.ndarray, path: Path | str) -> np.ndarray:
    """The array as the smallest fitting integer type; raises ImageError when a value is not a whole number."""
    if array.dtype.kind == "f":
        if not np.isfinite(array).all() or (array != np.rint(array)).any():
            raise ImageError(
                f"{path} should hold whole numbers (labels), found other values; export it as a label map."
            )
        array = array.astype(np.int32)
    low, high = (int(array.min()), int(array.max())) if array.size else (0, 0)
    return array.astype(np.result_type(np.min_scalar_type(low), np.min_scalar_type(high)), copy=False)


def read_geometry(path: Path | str) -> Geometry:
    """The grid of an image file from its header alone; raises ImageError."""
    path = _existing(path)
    if file_ending(path) in TIFF_ENDINGS:
        return _tiff_geometry(path, *tiff_shape(path))
    try:
        header = read_header(path)
    except RuntimeError as error:
        if file_ending(path) in NIFTI_ENDINGS:
            return nifti_geometry(path)
        raise _unreadable(path) from error
    return _geometry(header.GetSize(), header.GetSpacing(), header.GetOrigin(), header.GetDirection(), path)


def read_header(path: Path):
    """What SimpleITK's reader knows of a file without its voxels; raises RuntimeError when that is nothing, ImageError."""
    import SimpleITK as sitk

    require_sound_header(path)
    reader = sitk.ImageFileReader()
    with path_to_read(path) as plain:
        reader.SetFileName(plain)
        reader.ReadImageInformation()
    require_few_axes(path, reader.GetDimension() + (reader.GetNumberOfComponents() > 1))
    return reader


def needs_nibabel(path: Path | str) -> bool:
    """Whether a NIfTI file is one that SimpleITK refuses, for axes that are askew, and nibabel reads."""
    if file_ending(path) not in NIFTI_ENDINGS or not Path(path).is_file():
        return False
    try:
        read_header(Path(path))
    except RuntimeError:
        return has_nibabel()
    return False


def write_labels(path: Path | str, labels: np.ndarray, geometry: Geometry) -> None:
    """Write a label map (Z, Y, X), uint8 if its values fit, else uint16, whole or not at all.

    The path's ending chooses the format. Raises ImageError when values are not whole numbers from 0 to 65535, the shape
    is not that of the grid, or several slices should go into a picture; StorageError.
    """
    path = path_of(path)
    _require_on_grid(path, labels, geometry)
    _write(path, labels.astype(number_type(_highest_label(labels, path)), copy=False), geometry)


def write_image(path: Path | str, array: np.ndarray, geometry: Geometry) -> None:
    """Write one channel (Z, Y, X) with its grid, whole or not at all; the path's ending chooses the format.

    Raises ImageError when the shape is not that of the grid, or several slices should go into a picture; StorageError.
    """
    path = path_of(path)
    _require_on_grid(path, array, geometry)
    _write(path, array, geometry)


def copy_image(source: Path, target: Path) -> None:
    """Copy an image file with what belongs to it: a TIFF's voxel size beside it, the voxels that a header names.

    Every file is copied whole or not at all. Raises ImageError, StorageError.
    """
    copy_with_voxels(source, target)
    sidecar = source.with_suffix(".json")
    if file_ending(source) in TIFF_ENDINGS and sidecar.is_file():
        copy_whole(sidecar, target.with_suffix(".json"))


def read_array(path: Path, reader: str = "") -> tuple[np.ndarray, Geometry]:
    """The voxels (C, Z, Y, X) of one file in the file's own number type, and their grid; raises ImageError.

    For work that must neither lose digits nor pay for a float32 copy: checking and converting files.
    """
    import SimpleITK as sitk

    path = _existing(path)
    require_complete(path)
    require_sound_header(path)
    if file_ending(path) in TIFF_ENDINGS:
        array, plane = read_tiff(path)
        return array, _tiff_geometry(path, array.shape[1:], plane)
    is_nifti, to_ras = file_ending(path) in NIFTI_ENDINGS, reader in REORIENTING_READERS
    voxels = float_voxels(path) if is_nifti else None
    if voxels is not None:
        grid = read_geometry(path)
        is_turned = to_ras and grid.dimension == 3  # planes of whole numbers are not, either
        return read_nifti(path, to_ras) if is_turned else (voxels, grid)
    try:
        with path_to_read(path, copy_image) as plain:
            volume = sitk.ReadImage(plain)
    except RuntimeError as error:
        if not is_nifti:
            raise _unreadable(path) from error
        return read_nifti(path, to_ras)
    require_real(sitk.GetArrayViewFromImage(volume), path)
    if to_ras and volume.GetDimension() == 3:
        volume = sitk.DICOMOrient(volume, "RAS")
    array = sitk.GetArrayFromImage(volume)
    require_few_axes(path, array.ndim)
    array = _channels_first(array, volume)
    if file_ending(path) == ".bmp":
        array = without_grey_palette(array, path)
    return array, _geometry(volume.GetSize(), volume.GetSpacing(), volume.GetOrigin(), volume.GetDirection(), path)


def _channels_first(array: np.ndarray, volume) -> np.ndarray:
    """(C, Z, Y, X) from SimpleITK's array: vector pixels are last, a fourth axis and 2-D files lack the rest."""
    if volume.GetNumberOfComponentsPerPixel() > 1:
        array = np.moveaxis(array, -1, 0)
    elif volume.GetDimension() < 4:
        array = array[None]
    return array[:, None] if volume.GetDimension() == 2 else array


def _geometry(size, spacing, origin, direction, path: Path) -> Geometry:
    """From SimpleITK's values; an axis of negative spacing, which headers alone may have, runs the other way."""
    dimension = len(size)
    axes = np.reshape(direction, (dimension, dimension)) * np.copysign(1.0, spacing)
    spacing = np.abs(spacing)
    if dimension == 4:
        return Geometry.from_lps(size[:3], spacing[:3], origin[:3], axes[:3, :3])
    if dimension == 2:
        in_plane = (1.0, 1.0) if file_ending(path) in FLAT_ENDINGS else spacing
        rows = np.eye(3)
        rows[:2, :2] = axes
        spacing = (*in_plane, PLANE_SPACING * max(in_plane))
        return Geometry.from_lps((*size, 1), spacing, (*origin, 0.0), rows, dimension=2)
    return Geometry.from_lps(size, spacing, origin, axes)


def _tiff_geometry(path: Path, shape: tuple[int, int, int], plane: bool) -> Geometry:
    """A plane has nnU-Net's thickness, a volume the voxel size noted beside it; where it lies nobody knows."""
    spacing = (PLANE_SPACING, 1.0, 1.0) if plane else tiff_spacing(path)
    return Geometry(tuple(shape), spacing, direction=_LPS, dimension=2 if plane else 3)


def _unreadable(path: Path) -> ImageError:
    if is_grey_with_alpha(path):
        return ImageError(f"{path} has an alpha channel (opacity) beside its grey values; save it without alpha.")
    return unreadable(path)


def _require_on_grid(path: Path, array: np.ndarray, geometry: Geometry) -> None:
    if not isinstance(array, np.ndarray) or not isinstance(geometry, Geometry):
        raise ImageError(
            f"Writing {path.name} needs an array (Z, Y, X) and its Geometry, found {type(array).__name__} and "
            f"{type(geometry).__name__}; give both, such as those of an image that was read."
        )
    if array.shape != geometry.shape:
        raise ImageError(
            f"The voxels of {path.name} should have the shape (z, y, x) of their grid, {geometry.shape}, found "
            f"{array.shape}; give the geometry that belongs to them."
        )
    if file_ending(path) in PLANE_ENDINGS and len(array) > 1:
        raise ImageError(
            f"A {file_ending(path)} file holds a single slice, found {len(array)} for {path.name}; write a volume such as "
            ".nii.gz instead."
        )


def _highest_label(labels: np.ndarray, path: Path) -> int:
    """The highest value; raises ImageError unless all are whole numbers that label files can hold."""
    if labels.dtype.kind in "bui" or (labels.dtype.kind == "f" and (labels == np.rint(labels)).all()):
        low = 0 if labels.dtype.kind in "bu" else labels.min()
        high = labels.max()
        if low >= 0 and high <= LARGEST_VALUE:
            return int(high)
        found = f"{low:g} to {high:g}"
    else:
        found = f"fractions, NaN or no numbers ({labels.dtype})"
    raise ImageError(
        f"Labels are whole numbers from 0 to {LARGEST_VALUE}, found {found} for {path.name}; renumber or round them."
    )


def _write(path: Path, array: np.ndarray, geometry: Geometry) -> None:
    import SimpleITK as sitk

    ending = file_ending(path)
    plane = geometry.dimension == 2 or ending in PLANE_ENDINGS
    if ending in NIFTI_ENDINGS and not plane and _needs_sform(geometry):
        write_nifti(path, array, geometry)
        return
    volume = sitk.GetImageFromArray(np.ascontiguousarray(array[0] if plane else array))
    spacing, origin, direction = geometry.to_lps()
    if not plane:
        volume.SetSpacing(spacing), volume.SetOrigin(origin), volume.SetDirection(direction)
    elif ending not in FLAT_ENDINGS:
        volume.SetSpacing(spacing[:2]), volume.SetOrigin(origin[:2])
        volume.SetDirection([direction[i] for i in (0, 1, 3, 4)])
    compress = ending not in (".nii", ".mhd", ".gipl", ".bmp")
    if ending == ".mhd":
        _write_with_voxels_beside(path, volume)
        return
    with written_whole(path) as temporary:
        _write_volume(volume, temporary, compress)
        if ending in TIFF_ENDINGS and not plane:
            write_json(path.with_name(path.name[: -len(ending)] + ".json"), {"spacing": geometry.spacing_mm})


def _needs_sform(geometry: Geometry) -> bool:
    """Whether axes are askew; hardly askew ones are written straightened by SimpleITK where nibabel is not installed."""
    return not geometry.is_perpendicular and (has_nibabel() or geometry.shear >= HARDLY_ASKEW)


def _write_with_voxels_beside(path: Path, volume) -> None:
    """A .mhd header names its voxel file, so both are made in a folder of their own before they get their names."""
    with written_whole(path) as header, working_folder(path.parent, ".voxels-") as folder:
        made = folder / ascii_name(path.name)
        _write_volume(volume, made, False)
        for voxels in folder.glob("*raw"):
            beside = path.with_name(path.stem + voxels.suffix)
            move(voxels, beside)
            text = made.read_text(**HEADER_TEXT).replace(voxels.name, beside.name)
            header.write_text(text, newline="\n", **HEADER_TEXT)


def _write_volume(volume, path: Path, compress: bool) -> None:
    import SimpleITK as sitk

    try:
        with path_to_write(path) as plain:
            sitk.WriteImage(volume, plain, compress)
    except RuntimeError as error:
        raise OSError(str(error).splitlines()[-1]) from error


def _existing(path: Path | str) -> Path:
    path = path_of(path)
    if not path.is_file():
        advice = TOO_LONG if is_too_long(path) else "correct the path or put the file there"
        raise ImageError(f"Expected the image file {path}, found nothing there; {advice}.")
    return path


def _require_same_size(first: Path, expected: Geometry, path: Path, found: Geometry) -> None:
    if expected.shape != found.shape:
        raise ImageError(
            f"{path.name} has {found.shape} voxels (z, y, x) but {first.name} has {expected.shape}; "
            "all channels of a case must lie on one grid, resample them first."
        )
    if not np.allclose(expected.spacing_mm, found.spacing_mm):
        raise ImageError(
            f"{path.name} has voxels of {found.spacing_mm} mm (z, y, x) but {first.name} has "
            f"{expected.spacing_mm} mm; all channels of a case must lie on one grid, resample them first."
        )
