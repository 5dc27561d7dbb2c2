"""Write a described source as a task: files are copied where they fit, rewritten only where they must be."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from ..cases import CaseOrigin, TaskOrigin, save_origin
from ..colors import save_label_colors
from ..copying import copy_file, folder_in_making, give_name
from ..errors import StorageError, TaskError, some
from ..folders import LABELS_CSV
from ..geometry import Geometry
from ..image import (
    FLAT_ENDINGS,
    TIFF_ENDINGS,
    file_ending,
    is_coloured,
    read_geometry,
    read_labels,
    write_image,
    write_labels,
)
from ..machine.locks import one_after_another_in
from ..progress import Progress, in_parallel, silent
from ..segments.label_files import LabelFile, renumbered, settle_values, write_provisional
from ..task import write_dataset_json
from .segments import drawn_on
from .source import Source, SourceCase, Volume, stored_layout, stored_voxels
from .tiff_grids import case_grid, note_spacing

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Written:
    """What writing a case left to be done or said."""

    label_file: LabelFile | None = None
    notes: tuple[str, ...] = ()


def build_task(
    source: Source,
    raw: Path,
    name: Callable[[], str],
    *,
    overlaps: str = "order",
    in_place: bool = False,
    workers: int = 2,
    progress: Progress = silent,
) -> Path:
    """Write the task to a new folder in `raw`, whole or not at all; returns that folder.

    `name` is asked for the folder's name when all is written, so that no other task takes its number meanwhile.
    `overlaps` says what becomes of segments that overlap, see `label_files.settle_values`.
    With `in_place` only dataset.json, labels.csv and cases.json are written and the images stay where they are.
    Raises TaskError when source files are missing, ImageError for damaged ones, StorageError when writing fails.
    """
    require_files(source)
    with folder_in_making(raw) as building:
        if in_place:
            _require_usable_in_place(source, workers, progress)
            _write_description(source, building, {"dataset": _listed(source)}, {})
        else:
            source, notes = write_cases(source, building, overlaps, workers, progress)
            _write_description(source, building, {}, notes)
        with one_after_another_in(raw, _log.warning):
            folder = raw / name()
            give_name(building, folder)
    return folder


def write_cases(
    source: Source, folder: Path, overlaps: str, workers: int, progress: Progress
) -> tuple[Source, dict[str, tuple[str, ...]]]:
    """Write all images and labels below `folder`; the source with its final labels, and sentences about cases by id.

    Raises ImageError for damaged files, StorageError when writing fails.
    """
    _require_space(source, folder)
    written = in_parallel(partial(_write_case, source, folder), source.cases, workers, progress, "Copying cases")
    files = [case.label_file for case in written if case.label_file]
    labels, notes = settle_values(files, source.labels, overlaps) if files else (source.labels, [])
    of_case = {file.path: own for file, own in zip(files, notes, strict=True)}
    said = {
        case.id: (*done.notes, *(of_case[done.label_file.path] if done.label_file else ()))
        for case, done in zip(source.cases, written, strict=True)
    }
    for case_id, sentences in said.items():
        for sentence in sentences:
            _log.warning("%s: %s", case_id, sentence)
    return replace(source, labels=labels), said


def _write_case(source: Source, building: Path, case: SourceCase) -> _Written:
    images = building / f"images{case.group}"
    labels = building / f"labels{case.group}" / (case.id + source.file_ending)
    notes = _put_volume(case.volume, images, case.id, source) if case.volume else ()
    grid = case_grid(case) if source.tiff_headers and not source.planes else None
    first_free = 0
    for path in case.images:
        first_free += _place_image(path, images, case.id, first_free, source, grid)
    if case.labels is not None:
        _place_labels(case.labels, labels, source, grid)
    if source.file_ending in TIFF_ENDINGS:
        note_spacing(images / f"{case.id}.json", grid)
        note_spacing(labels.with_name(f"{case.id}.json"), grid if case.labels else None)
    if case.segments is None:
        return _Written(None, notes)
    file, own = _draw_segments(case, labels, images / f"{case.id}_0000{source.file_ending}", source)
    return _Written(file, (*notes, *own))


def _put_volume(volume: Volume, folder: Path, case_id: str, source: Source) -> tuple[str, ...]:
    voxels, geometry, notes = volume.read()
    write_image(folder / f"{case_id}_0000{source.file_ending}", voxels, geometry)
    return notes


def _draw_segments(case: SourceCase, path: Path, image: Path, source: Source) -> tuple[LabelFile, tuple[str, ...]]:
    """Write the segments of a case on the grid of its image file, values still provisional."""
    grid = read_geometry(image)
    segments, notes = drawn_on(grid, case, source.labels)
    return write_provisional(path, case.id, segments, grid, source.labels), notes


def _place_image(path: Path, folder: Path, case_id: str, channel: int, source: Source, grid: Geometry | None) -> int:
    """Copy or rewrite one image file from channel number `channel` on; returns how many channel files it became.

    `grid` is what the case's files tell together where the image's own does not tell it.
    """
    if not needs_rewriting(path, source):
        copy_file(path, folder / f"{case_id}_{channel:04d}{source.file_ending}")
        _copy_spacing(path, folder / f"{case_id}.json")
        return 1
    array, geometry = stored_voxels(path, source.planes)
    array = array[:-1] if source.drop_alpha and stored_layout(path).has_alpha else array
    geometry = _on(grid, geometry)
    geometry = replace(geometry, dimension=3) if source.only_volumes else geometry
    for offset, voxels in enumerate(array):
        write_image(folder / f"{case_id}_{channel + offset:04d}{source.file_ending}", voxels, geometry)
    return len(array)


def _place_labels(path: Path, target: Path, source: Source, grid: Geometry | None) -> None:
    as_it_is = not source.values_changed and same_type(path, target) and not is_coloured(path)
    if as_it_is and not _needs_another_grid(path, source, grid):
        copy_file(path, target)
        _copy_spacing(path, target.with_name(target.name[: -len(source.file_ending)] + ".json"))
        return
    found = read_labels(path)
    geometry = _on(grid, found.geometry)
    geometry = replace(geometry, dimension=3) if source.only_volumes else geometry
    write_labels(target, renumbered(found.array, source.values_changed), geometry)


def _needs_another_grid(path: Path, source: Source, grid: Geometry | None) -> bool:
    if source.only_volumes and read_geometry(path).dimension == 2:
        return True
    if grid is None or file_ending(path) in TIFF_ENDINGS:  # the voxel size of a TIFF lies beside it
        return False
    own = read_geometry(path)
    return not _on(grid, own).same_grid(own)


def _on(grid: Geometry | None, own: Geometry) -> Geometry:
    """The grid of the case for a file that fits it."""
    return grid if grid is not None and grid.shape == own.shape else own


def needs_rewriting(path: Path, source: Source) -> bool:
    """Whether nnU-Net's layout cannot take the image file as it is: another file type, or several channels in it."""
    if not same_type(path, source.file_ending):
        return True
    layout = stored_layout(path, source.planes)
    if layout.channels_first or (source.drop_alpha and layout.has_alpha):
        return True
    holds_colors = layout.axes == 2 and file_ending(path) in FLAT_ENDINGS and not source.split_colors
    is_flat = layout.axes == 2 and source.only_volumes
    return is_flat or layout.axes == 4 or (layout.channels > 1 and not holds_colors)


def same_type(path: Path, other: Path | str) -> bool:
    """Whether two names mean the same file type; .tif and .tiff do."""
    endings = {file_ending(path), file_ending(other)}
    return len(endings) == 1 or endings <= set(TIFF_ENDINGS)


def _copy_spacing(path: Path, target: Path) -> None:
    """nnU-Net keeps the voxel size of 3-D TIF files in a JSON file beside them."""
    if file_ending(path) in TIFF_ENDINGS:
        name = path.name[: -len(file_ending(path))]
        found = [path.with_name(f"{text}.json") for text in (name, name[:-5])]
        sidecar = next((candidate for candidate in found if candidate.is_file()), None)
        if sidecar and not target.exists():
            copy_file(sidecar, target)


def _write_description(source: Source, building: Path, listed: dict, notes: dict[str, tuple[str, ...]]) -> None:
    for path in source.companions:
        copy_file(path, building / path.name)
    write_dataset_json(
        building,
        source.channel_names,
        source.labels,
        source.n_training,
        source.file_ending,
        **dict(source.notes),
        **listed,
    )
    save_label_colors(building / LABELS_CSV, source.labels)
    save_origin(_origin(source, notes), building)


def _origin(source: Source, notes: dict[str, tuple[str, ...]]) -> TaskOrigin:
    return TaskOrigin(
        source=str(source.folder),
        format=source.format,
        values_changed=source.values_changed,
        remarks=source.remarks,
        cases=tuple(
            CaseOrigin(case.id, _image_origins(case), _label_origin(case), notes.get(case.id, ()))
            for case in source.cases
        ),
    )


def _image_origins(case: SourceCase) -> tuple[str, ...]:
    return (case.volume.origin,) if case.volume else tuple(str(path) for path in case.images)


def _label_origin(case: SourceCase) -> str:
    """The label file, or the folder of several."""
    files = case.label_files
    return str(files[0] if len(files) == 1 else files[0].parent) if files else ""


def _listed(source: Source) -> dict:
    """nnU-Net's `dataset` entry: the training files where they are."""
    return {
        case.id: {"images": [str(path.absolute()) for path in case.images], "label": str(case.labels.absolute())}
        for case in source.cases
        if case.group == "Tr"
    }


def require_files(source: Source) -> None:
    """Raise TaskError naming files of the source that are missing."""
    files = [path for case in source.cases for path in (*case.image_files, *case.label_files)]
    missing = [str(path) for path in files if not path.is_file()]
    if missing:
        raise TaskError(
            f"{len(missing)} files that belong to {source.folder} are not there ({some(missing, 3)}); "
            "restore them, or take their cases out of the folder and of dataset.json."
        )


def _require_usable_in_place(source: Source, workers: int, progress: Progress) -> None:
    training = [case for case in source.cases if case.group == "Tr"]
    unfit = in_parallel(partial(_unfit_in_place, source), training, workers, progress, "Looking at cases")
    names = [case.id for case, is_unfit in zip(training, unfit, strict=True) if is_unfit]
    if source.values_changed or names:
        reason = "label values must be renumbered" if source.values_changed else f"{some(names)} must be rewritten"
        raise TaskError(
            f"{source.folder} cannot be used in place because {reason} (nnU-Net's layout has one file per channel, one "
            "file type and consecutive labels); convert it with copying."
        )


def _unfit_in_place(source: Source, case: SourceCase) -> bool:
    if case.segments or case.volume:
        return True
    if not same_type(case.labels, source.file_ending) or is_coloured(case.labels):
        return True
    return any(needs_rewriting(path, source) for path in case.images)


def _require_space(source: Source, building: Path) -> None:
    files = [path for case in source.cases for path in (*case.image_files, *([case.labels] if case.labels else ()))]
    needed, free = sum(path.stat().st_size for path in files), shutil.disk_usage(building).free
    if needed > free:
        raise StorageError(
            f"Copying {source.folder} needs {needed / 1e6:,.0f} MB, but {building.parent} has {free / 1e6:,.0f} MB free; "
            "choose another workspace, or use the data in place."
        )
