"""DICOM image series: their planes from the headers, sorted along the patient, and their voxels as one volume.

Where a plane lies comes from ImagePositionPatient, ImageOrientationPatient and PixelSpacing (LPS, mm; DICOM part 3,
C.7.6.2), never from file names or instance numbers. Planes may lie in a file each or be the frames of one file.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from ..errors import ImageError, TaskError
from ..geometry import Geometry
from ..grids.regular import Voxels, onto_first_grid
from ..image_files.itk_paths import path_to_read
from .source import Volume

_MAGIC_AT = 128
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_SAME_DIRECTION = 1e-3
_FARTHEST = 1e9
"""In mm."""
_UNEVEN = 0.1
"""Gaps between planes may differ by this part of the usual gap."""


@dataclass(frozen=True)
class Plane:
    """One slice: a file, or one frame of a file."""

    file: Path
    frame: int
    uid: str
    """SOPInstanceUID."""
    position: tuple[float, ...]
    """Centre of the first pixel, LPS, mm."""
    orientation: tuple[float, ...]
    """LPS unit vectors along which the column index, then the row index grows."""
    pixel_mm: tuple[float, float]
    """Between rows, between columns."""
    shape: tuple[int, int]
    """Rows, columns."""
    thickness_mm: float
    rescaling: tuple[float, float] = (1.0, 0.0)
    """Factor and summand from values rescaled like the file's first frame, as they are read, to this frame's own."""

    def __post_init__(self) -> None:
        lengths = len(self.position), len(self.orientation)
        numbers = (*self.position, *self.orientation, *self.pixel_mm, self.thickness_mm)
        if lengths != (3, 6) or not all(abs(n) < _FARTHEST for n in numbers) or min(*self.pixel_mm, *self.shape) <= 0:
            raise ValueError("the place of its pixels")

    @property
    def normal(self) -> np.ndarray:
        return np.cross(self.orientation[:3], self.orientation[3:])

    @property
    def height_mm(self) -> float:
        """Position along the normal."""
        return float(np.dot(self.position, self.normal))


@dataclass(frozen=True)
class Series:
    """The planes of one SeriesInstanceUID, sorted along their normal."""

    uid: str
    modality: str
    patient: str
    frame_of_reference: str
    planes: tuple[Plane, ...]

    @property
    def folder(self) -> Path:
        return self.planes[0].file.parent

    def __str__(self) -> str:
        return f"the {self.modality} series in {self.folder} ({self.uid})"


def require_pydicom() -> None:
    """Raise TaskError with the command that installs it when the package pydicom is missing."""
    if importlib.util.find_spec("pydicom") is None:
        raise TaskError("Reading DICOM needs the package pydicom, which is not installed; run: pip install pydicom")


def is_dicom(path: Path) -> bool:
    """Whether a file starts like DICOM part 10 files do."""
    return head(path)[_MAGIC_AT : _MAGIC_AT + 4] == b"DICM"


def head(path: Path) -> bytes:
    """The first bytes of a file, preamble and file meta information of DICOM."""
    try:
        with path.open("rb") as file:
            return file.read(1024)
    except OSError as error:
        raise TaskError(f"{path} cannot be read ({error.strerror}); check its permissions.") from error


def read_header(path: Path):
    """The attributes of a DICOM file but its pixels; raises ImageError when it is damaged."""
    import pydicom

    try:
        return pydicom.dcmread(path, stop_before_pixels=True)
    except (pydicom.errors.InvalidDicomError, EOFError, ValueError, NotImplementedError) as error:
        raise ImageError(f"{path} cannot be read as DICOM ({error}); copy it again.") from error


def series_of(headers: Iterable[tuple[Path, object]]) -> tuple[Series, ...]:
    """The image series among parsed files; files without a place in the patient are left out."""
    found: dict[str, list] = {}
    for path, header in headers:
        planes = planes_of(path, header)
        if planes:
            found.setdefault(str(header.get("SeriesInstanceUID", "")), []).append((header, planes))
    return tuple(_series(uid, files) for uid, files in sorted(found.items()))


def planes_of(path: Path, header) -> list[Plane]:
    """The planes of a file in the order of its frames; none when it does not say where they lie."""
    with usable_attributes(path):
        return _planes(path, header)


@contextlib.contextmanager
def usable_attributes(path: Path) -> Iterator[None]:
    """Turn what pydicom and Python raise for attributes that are missing, or of another kind, into an ImageError."""
    try:
        yield
    except (AttributeError, TypeError, ValueError, LookupError, OverflowError) as error:
        raise ImageError(
            f"{path} should have the attributes of its kind of DICOM object, found one missing or of another kind "
            f"({error!s:.80}); export it again."
        ) from error


def _planes(path: Path, header) -> list[Plane]:
    frames = header.get("PerFrameFunctionalGroupsSequence")
    if not frames:
        return [_plane(path, 0, header, (header,))] if "ImagePositionPatient" in header else []
    shared = header.get("SharedFunctionalGroupsSequence") or [None]
    groups = [tuple(_macros(frame, shared[0])) for frame in frames]
    if any(_first(own, "ImagePositionPatient") is None for own in groups):
        return []
    rescaled = [_rescale(own) for own in groups]
    return [
        replace(_plane(path, n, header, own), rescaling=_between(rescaled[0], rescaled[n]))
        for n, own in enumerate(groups)
    ]


def _rescale(groups: tuple) -> tuple[float, float]:
    """RescaleSlope and RescaleIntercept of a frame."""
    slope, intercept = _first(groups, "RescaleSlope"), _first(groups, "RescaleIntercept")
    return float(1 if slope is None else slope) or 1.0, float(intercept or 0)


def _between(first: tuple[float, float], own: tuple[float, float]) -> tuple[float, float]:
    """Factor and summand that turn values rescaled like the first frame's into a frame's own."""
    if first == own:
        return 1.0, 0.0
    factor = own[0] / first[0]
    return factor, own[1] - factor * first[1]


def one_volume(series: Series, uids: frozenset[str]) -> Series:
    """The planes of a series that make up one volume.

    Where several planes share a place, only the instances in `uids` count. Raises TaskError when the planes are no
    volume: turned against each other, of different size, or unevenly spaced.
    """
    chosen = _without_doubles(series, uids)
    _require_stack(chosen)
    return chosen


def volume(series: Series) -> Volume:
    """A series of one volume as an image to be read later."""
    files = tuple(dict.fromkeys(plane.file for plane in series.planes))
    return Volume(files, f"{series.folder} ({series.modality} series {series.uid})", partial(_read, series))


def stack_matrix(planes: Sequence[Plane]) -> np.ndarray:
    """4×4 matrix from the (x, y, z) index of evenly spaced planes to RAS mm; its axes are sheared by a tilted gantry."""
    first, last = planes[0], planes[-1]
    if len(planes) > 1:
        step = np.subtract(last.position, first.position) / (len(planes) - 1)
    else:
        step = first.normal * first.thickness_mm
    return plane_matrix(first, step)


def plane_matrix(plane: Plane, step: np.ndarray) -> np.ndarray:
    """The same for planes of which each lies `step` (LPS, mm) further than the one before."""
    matrix = np.eye(4)
    matrix[:3, 0] = np.multiply(plane.orientation[:3], plane.pixel_mm[1])
    matrix[:3, 1] = np.multiply(plane.orientation[3:], plane.pixel_mm[0])
    matrix[:3, 2] = step
    matrix[:3, 3] = plane.position
    return _LPS_TO_RAS @ matrix


def same_plane(one: Plane, other: Plane) -> bool:
    """Whether two planes have the same pixels but for their position."""
    is_parallel = np.abs(np.subtract(one.orientation, other.orientation)).max() < _SAME_DIRECTION
    return one.shape == other.shape and is_parallel and np.allclose(one.pixel_mm, other.pixel_mm, rtol=1e-3)


def _series(uid: str, files: list) -> Series:
    header = files[0][0]
    found = {(p.uid, p.frame, p.position): p for _, own in files for p in own}  # copies of a file are one
    planes = sorted(found.values(), key=lambda plane: (plane.height_mm, str(plane.file)))
    return Series(
        uid,
        str(header.get("Modality", "")),
        str(header.get("PatientID", "")),
        str(header.get("FrameOfReferenceUID", "")),
        tuple(planes),
    )


def _macros(frame, shared) -> Iterator[object]:
    """The items of a frame's functional groups, those of all frames after them."""
    for group in (frame, shared):
        for element in group or ():
            if element.VR == "SQ" and element.value:
                yield element.value[0]


def _first(places: Iterable, keyword: str):
    return next((place.get(keyword) for place in places if place.get(keyword) is not None), None)


def _plane(path: Path, frame: int, header, places: tuple) -> Plane:
    orientation, spacing = _first(places, "ImageOrientationPatient"), _first(places, "PixelSpacing")
    if orientation is None or spacing is None:
        raise ImageError(f"{path} says where it lies, but not its orientation or pixel size; export it again.")
    thickness = _first(places, "SpacingBetweenSlices") or _first(places, "SliceThickness") or 1.0
    return Plane(
        file=path,
        frame=frame,
        uid=str(header.SOPInstanceUID),
        position=tuple(float(v) for v in _first(places, "ImagePositionPatient")),
        orientation=tuple(float(v) for v in orientation),
        pixel_mm=(float(spacing[0]), float(spacing[1])),
        shape=(int(header.Rows), int(header.Columns)),
        thickness_mm=abs(float(thickness)) or 1.0,
    )


def _without_doubles(series: Series, uids: frozenset[str]) -> Series:
    if not _doubles(series):
        return series
    chosen = replace(series, planes=tuple(plane for plane in series.planes if plane.uid in uids))
    if not chosen.planes or _doubles(chosen):
        raise TaskError(
            f"{series} should hold one volume, found {len(series.planes)} planes at "
            f"{len(series.planes) - _doubles(series)} places (time points, echoes?); keep the one that was segmented."
        )
    return chosen


def _doubles(series: Series) -> int:
    """How many planes lie where another lies."""
    return len(series.planes) - len({tuple(np.round(plane.position, 3)) for plane in series.planes})


def _require_stack(series: Series) -> None:
    planes = series.planes
    if not all(same_plane(planes[0], plane) for plane in planes):
        raise TaskError(f"{series} should hold parallel planes of one size, found several; keep those of one volume.")
    if len(planes) < 3:
        return
    gaps = np.diff([plane.height_mm for plane in planes])
    usual = float(np.median(gaps))
    if np.abs(gaps - usual).max() > _UNEVEN * usual:
        where = int(np.abs(gaps - usual).argmax())
        raise TaskError(
            f"{series} should have evenly spaced planes, found a gap of {gaps[where]:.2f} mm among gaps of {usual:.2f} mm "
            f"(after {planes[where].file.name}); planes seem to be missing, export the series again."
        )
    places = np.array([plane.position for plane in planes])
    if np.abs(places - np.linspace(places[0], places[-1], len(places))).max() > _UNEVEN * usual:
        raise TaskError(f"{series} should have its planes on a straight line, found them shifted; export it again.")


def _read(series: Series) -> tuple[np.ndarray, Geometry, tuple[str, ...]]:
    array = _voxels(series)
    channels, grid, notes = onto_first_grid(
        [f"The {series.modality} series"], [Voxels(array[None], stack_matrix(series.planes))]
    )
    is_whole = array.dtype.kind in "iu"
    return (np.rint(channels[0]).astype(array.dtype) if is_whole else channels[0]), grid, notes


def _voxels(series: Series) -> np.ndarray:
    """The planes (Z, Y, X) with the scanner's rescaling applied, in the smallest common number type."""
    frames: dict[Path, np.ndarray] = {}
    planes = []
    for plane in series.planes:
        if plane.file not in frames:
            frames = {plane.file: _frames(plane.file)}
        planes.append(_rescaled(frames[plane.file][plane.frame], *plane.rescaling))
    array = np.stack(planes)
    if array.dtype.kind == "f":
        return array.astype(np.float32)
    fits = np.iinfo(np.int16).min <= array.min() and array.max() <= np.iinfo(np.int16).max
    return array.astype(np.int16 if fits else np.int32)


def _rescaled(frame: np.ndarray, factor: float, summand: float) -> np.ndarray:
    if (factor, summand) == (1.0, 0.0):
        return frame
    stays_whole = frame.dtype.kind in "iu" and factor.is_integer() and summand.is_integer()
    return (frame * factor + summand).astype(np.int32 if stays_whole else np.float32)


def _frames(path: Path) -> np.ndarray:
    """All frames (Z, Y, X) of a file; compressed ones are unpacked."""
    import SimpleITK as sitk

    try:
        with path_to_read(path) as plain:
            image = sitk.ReadImage(plain, imageIO="GDCMImageIO")
    except RuntimeError as error:
        raise ImageError(f"The pixels of {path} cannot be read; the file may be damaged or incomplete.") from error
    if image.GetNumberOfComponentsPerPixel() > 1:
        raise ImageError(f"{path} is a colour picture, expected grey values; leave this series out.")
    return sitk.GetArrayFromImage(image).reshape(-1, *image.GetSize()[1::-1])
