"""Folders of DICOM files, however they lie: image series become images, DICOM SEG objects their labels.

A case is a series that a segmentation refers to; several segmentations of one series are taken together. Series that
nobody segmented are left out. Cases are named after the folder in the source that holds their series, else after the
PatientID. There is one channel, the series itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

from ..cases import case_names
from ..errors import TaskError, some
from ..folders import visible
from ..progress import Progress, in_parallel
from . import dicom_seg
from .dicom_series import (
    Series,
    is_dicom,
    one_volume,
    read_header,
    require_pydicom,
    series_of,
    usable_attributes,
    volume,
)
from .segments import common_labels
from .source import SegmentLayer, Segments, Source, SourceCase, image_files

FORMAT = "DICOM"
_CHANNELS = {"CT": "CT", "MR": "MR", "PT": "PET"}


@dataclass(frozen=True)
class _Found:
    """A segmentation and the series it was drawn on."""

    path: Path
    header: object
    series: Series
    instances: frozenset[str]


def recognises(folder: Path) -> bool:
    """Whether DICOM files lie in the folder or below, segmentations among them where there are other images too."""
    files = _files(folder)
    is_ours = dicom_seg.is_segmentation if image_files(folder) else is_dicom
    return any(is_ours(path) for path in files)


def read(folder: Path, workers: int, progress: Progress) -> Source:
    """Describe a folder of DICOM files; raises TaskError without pydicom, without segmentations, or without their images."""
    require_pydicom()
    files = [path for path in _files(folder) if is_dicom(path)]
    headers = in_parallel(read_header, files, workers, progress, "Reading DICOM headers")
    drawn = {path: header for path, header in zip(files, headers, strict=True) if _is_segmentation(header)}
    images = series_of((path, header) for path, header in zip(files, headers, strict=True) if path not in drawn)
    if not drawn:
        raise TaskError(
            f"{folder} holds {len(images)} DICOM series but no DICOM SEG object; add the segmentations, or save images and "
            "labels as NIfTI or NRRD in two folders."
        )
    found = [_matched(path, header, images) for path, header in drawn.items()]
    cases = _cases(folder, found)
    return Source(
        folder=folder,
        format=FORMAT,
        channel_names=(_channel([one.series for one in found]),),
        labels=common_labels(cases),
        file_ending=".nii.gz",
        cases=cases,
    )


def _files(folder: Path) -> list[Path]:
    return [path for path in visible(folder, "**/*") if path.is_file()]


def _is_segmentation(header) -> bool:
    return str(header.get("SOPClassUID")) in dicom_seg.SOP_CLASSES


def _matched(path: Path, header, images: Sequence[Series]) -> _Found:
    """The segmentation with its series: the one it names, that of its source images, or the only one in its frame of reference."""
    with usable_attributes(path):
        wanted = dicom_seg.reference(header)
    named = [series for series in images if series.uid in wanted.series]
    sources = (series for series in images if any(plane.uid in wanted.instances for plane in series.planes))
    around = (s for s in images if wanted.frame_of_reference and s.frame_of_reference == wanted.frame_of_reference)
    for candidates in map(list, (named, sources, around)):  # planes are looked at only where no series is named
        if len(candidates) == 1:
            return _Found(path, header, candidates[0], wanted.instances)
    if named:
        raise TaskError(f"{path} refers to {len(named)} series ({some([s.uid for s in named], 2)}); keep one of them.")
    raise TaskError(
        f"{path} is a segmentation of the series {some(wanted.series or ['unknown'], 2)}, which is not in the folder; "
        "put its images there, or take the file out."
    )


def _cases(folder: Path, found: Sequence[_Found]) -> tuple[SourceCase, ...]:
    by_series: dict[str, list[_Found]] = {}
    for one in found:
        by_series.setdefault(one.series.uid, []).append(one)
    ordered = sorted(by_series.values(), key=lambda own: _name(folder, own[0].series))
    names = case_names(_name(folder, own[0].series) for own in ordered)
    return tuple(_case(name, own) for name, own in zip(names, ordered, strict=True))


def _case(name: str, found: Sequence[_Found]) -> SourceCase:
    series = one_volume(found[0].series, frozenset(chain.from_iterable(one.instances for one in found)))
    parts = [dicom_seg.read(one.path, one.header, series) for one in found]
    _require_names_once(name, parts)
    return SourceCase(name, (), segments=_together(parts), volume=volume(series))


def _together(parts: Sequence[Segments]) -> Segments:
    rows = tuple(chain.from_iterable(part.rows for part in parts))
    return Segments(tuple(part.files[0] for part in parts), rows, partial(_all_layers, tuple(parts)))


def _all_layers(parts: Sequence[Segments]) -> Iterator[SegmentLayer]:
    return chain.from_iterable(part.read() for part in parts)


def _require_names_once(case_id: str, parts: Sequence[Segments]) -> None:
    files: dict[str, list[str]] = {}
    for part in parts:
        for row in part.rows:
            if not dicom_seg.is_background(row):
                files.setdefault(row.name.casefold(), []).append(part.files[0].name)
    for name, where in files.items():
        if len(where) > 1:
            raise TaskError(
                f"The series of {case_id} has {len(where)} segments named {name} ({some(where)}); keep one of them, or "
                "rename the others."
            )


def _name(folder: Path, series: Series) -> str:
    inside = series.folder.relative_to(folder).parts
    return inside[0] if inside else series.patient or "case"


def _channel(series: Sequence[Series]) -> str:
    return " or ".join(sorted({_CHANNELS.get(one.modality, one.modality or "image") for one in series}))
