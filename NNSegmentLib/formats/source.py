"""What every foreign format is described as before it becomes a task."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ..cases import ValueChange, repeated
from ..errors import ImageError, TaskError, some
from ..folders import Workspace, visible
from ..geometry import Geometry
from ..given import is_digits
from ..grids.planes import PLANE_SPACING
from ..image import FILE_ENDINGS, PLANE_ENDINGS, TIFF_ENDINGS, file_ending, read_array, read_header
from ..image_files.tiff import tiff_layout
from ..labels import BACKGROUND, LabelSet
from ..segments.names import SegmentRow
from ..task_names import is_writable, new_task_name, split_name


@dataclass(frozen=True)
class Volume:
    """An image that has to be put together, such as the slices of a DICOM series."""

    files: tuple[Path, ...]
    origin: str
    """Where it lies, in words for cases.json."""
    read: Callable[[], tuple[np.ndarray, Geometry, tuple[str, ...]]]
    """Voxels (Z, Y, X), their grid, and sentences about what had to be done to them."""


@dataclass(frozen=True)
class SegmentLayer:
    """Segments that do not overlap, on a grid of their own."""

    array: np.ndarray
    """(Z, Y, X) integers."""
    ijk_to_ras: np.ndarray
    """4×4 matrix from the (x, y, z) index to the RAS position in mm."""
    ids: tuple[tuple[int, str], ...]
    """(value in the array, id of the segment); other values are nothing."""


@dataclass(frozen=True)
class Segments:
    """Labels of one case as named segments, which may overlap and may lie on other grids than the image."""

    files: tuple[Path, ...]
    rows: tuple[SegmentRow, ...]
    read: Callable[[], Iterable[SegmentLayer]]


@dataclass(frozen=True)
class SourceCase:
    """The files of one case as they lie in the source; one image file per channel, or one that holds all."""

    id: str
    images: tuple[Path, ...]
    labels: Path | None = None
    group: str = "Tr"
    """The ending of the folder it belongs to: 'Tr' (training), 'Ts' (test), 'Val'."""
    segments: Segments | None = None
    """In place of `labels`, where labels have names of their own or lie in several files."""
    volume: Volume | None = None
    """In place of `images`."""

    @property
    def image_files(self) -> tuple[Path, ...]:
        return self.volume.files if self.volume else self.images

    @property
    def label_files(self) -> tuple[Path, ...]:
        return self.segments.files if self.segments else (self.labels,) if self.labels else ()


@dataclass(frozen=True)
class Source:
    """A data set in a foreign format."""

    folder: Path
    format: str
    channel_names: tuple[str, ...]
    labels: LabelSet
    file_ending: str
    """What images and labels of the task shall end in."""
    cases: tuple[SourceCase, ...]
    values_changed: tuple[ValueChange, ...] = ()
    """Label values to renumber on the way."""
    notes: Mapping[str, object] = field(default_factory=dict)
    """Further entries of dataset.json (description, licence, …), kept as they are."""
    companions: tuple[Path, ...] = ()
    """Files that lie beside dataset.json and are copied with it."""
    split_colors: bool = False
    """Write colour planes as one file per channel, because the source mixes file types."""
    only_volumes: bool = False
    """Write 2-D images as volumes of one slice."""
    tiff_headers: bool = False
    """Plain folders: what TIFF headers tell of channels and voxel sizes counts, of which nnU-Net reads neither."""
    planes: bool = False
    """All labels are planes, so that what TIFF headers call channels are no slices."""
    drop_alpha: bool = False
    """Leave out the opacity of colour pictures, which is the same everywhere."""
    remarks: tuple[str, ...] = ()
    """Sentences about the whole for whoever converts it."""

    def __post_init__(self) -> None:
        training = [case.id for case in self.cases if case.group == "Tr"]
        if not training:
            raise TaskError(
                f"{self.folder} should hold at least one training case with image and labels, found none; add one."
            )
        if twice := repeated(training):
            raise TaskError(f"{self.folder} names {some(twice)} more than once; every case needs its own name.")

    @property
    def n_training(self) -> int:
        return sum(case.group == "Tr" for case in self.cases)

    def with_channel_names(self, names: tuple[str, ...]) -> Source:
        """The same with other channel names; raises TaskError when their number differs."""
        if len(names) != len(self.channel_names):
            raise TaskError(
                f"The cases have {len(self.channel_names)} channels, but {len(names)} names were given; give one for each."
            )
        return replace(self, channel_names=names)


def target_name(folder: Path, workspace: Workspace, number: int | None, name: str | None) -> str:
    """The name of the task's folder: the given one, else the source's own; raises TaskError when its number is taken."""
    own, text = split_name(folder.name)
    if number is None and split_name(name or "")[0] is None:
        number = own
    return new_task_name(workspace, name or (text if is_writable(text) else "Task"), number)


def image_files(folder: Path) -> list[Path]:
    """The image files of a folder, sorted; hidden files (such as macOS's `._` twins) and other files are left out."""
    return [
        path
        for path in visible(folder)
        if path.name.lower().endswith(FILE_ENDINGS) and not path.name.startswith("_") and path.is_file()
    ]


_FULL = (1.0, 255.0, 65535.0)
"""Opacity as fractions, in 8 and in 16 bits."""
_UNREAD_PICTURES = (".jpg", ".jpeg", ".gif", ".webp", ".jp2")


def unread_pictures(names: Iterable[str]) -> str:
    """What to do about pictures of types that are not read, as the end of a sentence; empty without any."""
    found = sorted({ending for name in names if (ending := Path(name).suffix.lower()) in _UNREAD_PICTURES})
    return f"; {' and '.join(found)} files are not read: save them as .png" if found else ""


def stem(path: Path) -> str:
    """The file name without its image ending."""
    return path.name[: -len(file_ending(path))]


def label_stem(path: Path) -> str:
    """The same for a label file: Slicer's .seg.nrrd goes as a whole."""
    return stem(path).removesuffix(".seg") if file_ending(path) == ".nrrd" else stem(path)


@dataclass(frozen=True)
class Layout:
    """What an image file's header tells."""

    axes: int
    channels: int
    """A 4-D file or vector pixels hold several."""
    fits_png: bool
    """Whether its numbers are whole, not negative and below 65536."""
    has_alpha: bool = False
    """Whether the last channel is the opacity of a colour picture."""
    channels_first: bool = False
    """A TIFF whose colours or channels lie one after the other, where nnU-Net sees slices."""
    is_film: bool = False
    """A TIFF whose header calls its planes times."""


def stored_layout(path: Path, planes: bool = False) -> Layout:
    """The layout of an image file from its header; raises ImageError.

    `planes` tells that what a TIFF's header calls channels cannot be slices.
    """
    import SimpleITK as sitk

    if file_ending(path) in TIFF_ENDINGS:
        return _tiff_layout(path, planes)
    if file_ending(path) == ".bmp":
        return _layout_of_voxels(path)  # the header alone does not tell grey from coloured palettes
    try:
        header = read_header(path)
    except RuntimeError:
        return _layout_of_voxels(path)
    axes = header.GetDimension()
    channels = header.GetSize()[3] if axes == 4 else header.GetNumberOfComponents()
    unsigned = (sitk.sitkUInt8, sitk.sitkUInt16, sitk.sitkVectorUInt8, sitk.sitkVectorUInt16)
    has_alpha = channels == 4 and file_ending(path) in PLANE_ENDINGS
    return Layout(axes, channels, header.GetPixelID() in unsigned, has_alpha)


def stored_voxels(path: Path, planes: bool = False) -> tuple[np.ndarray, Geometry]:
    """The voxels (C, Z, Y, X) of an image file and their grid, its channels where `stored_layout` sees them."""
    array, geometry = read_array(path)
    if file_ending(path) not in TIFF_ENDINGS or not stored_layout(path, planes).channels_first:
        return array, geometry
    shape = (1, *array.shape[2:])
    return np.moveaxis(array, 1, 0), replace(geometry, shape=shape, spacing_mm=(PLANE_SPACING, 1.0, 1.0), dimension=2)


def is_opaque(alpha: np.ndarray) -> bool:
    """Whether an opacity is full everywhere."""
    return bool(alpha.min() == alpha.max()) and float(alpha.flat[0]) in _FULL


def has_opaque_alpha(path: Path) -> bool:
    """Whether the last channel of a picture is an opacity that is full everywhere; raises ImageError."""
    return is_opaque(read_array(path)[0][-1])


def require_opaque(path: Path) -> None:
    """Raise ImageError for a picture whose last channel is an opacity that is not full everywhere."""
    if not has_opaque_alpha(path):
        raise ImageError(
            f"{path} has an alpha channel (opacity) that is not full everywhere, and what shines through is not known; "
            "save the picture without alpha."
        )


def _tiff_layout(path: Path, planes: bool) -> Layout:
    found = tiff_layout(path)
    fits_png = found.kind in (np.uint8, np.uint16)
    if planes and found.leading_channels:
        return Layout(2, found.leading_channels, fits_png, channels_first=True)
    is_volume = len(found.spatial) == 3
    axes = 4 if is_volume and found.samples > 1 else 2 + is_volume
    return Layout(axes, found.samples, fits_png, found.has_alpha and not is_volume, is_film="T" in found.axes)


def _layout_of_voxels(path: Path) -> Layout:
    array, geometry = read_array(path)
    is_volume = geometry.dimension == 3 and len(array) > 1
    has_alpha = len(array) == 4 and file_ending(path) in PLANE_ENDINGS
    return Layout(4 if is_volume else geometry.dimension, len(array), array.dtype in (np.uint8, np.uint16), has_alpha)


def value_to_name(labels: object, where: Path) -> LabelSet:
    """Labels of the older dataset.json, {"1": "liver"}, as a label set; the newer {"liver": 1} is accepted too."""
    if not isinstance(labels, Mapping) or not labels:
        raise TaskError(f'dataset.json in {where} should hold "labels": {{"0": "background", …}}, found {labels!r}.')
    if not all(is_digits(str(key)) for key in labels):
        return LabelSet.from_dataset_json({"labels": {BACKGROUND: 0} | dict(labels)})
    names = {int(value): str(name) for value, name in labels.items()}
    return LabelSet.from_dataset_json({"labels": _unique({0: BACKGROUND} | names)})


def _unique(names: Mapping[int, str]) -> dict[str, int]:
    by_name: dict[str, int] = {BACKGROUND: 0}
    for value in sorted(set(names) - {0}):
        name = names[value]
        by_name[name if name not in by_name else f"{name} ({value})"] = value
    return by_name


def channel_names(modality: object, where: Path) -> tuple[str, ...]:
    """The names of {"0": "MRI"} in order; raises TaskError."""
    if not isinstance(modality, Mapping) or not modality or not all(is_digits(str(k)) for k in modality):
        raise TaskError(f'dataset.json in {where} should hold "modality": {{"0": "MRI"}}, found {modality!r}.')
    return tuple(str(modality[key]) for key in sorted(modality, key=int))
