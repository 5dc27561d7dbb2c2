"""Write a described source as a task: files are copied where they fit, rewritten only where they must be."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from ..cases import CaseOrigin, TaskOrigin, save_origin
from ..colors import save_label_colors
from ..errors import StorageError, TaskError
from ..image import copy_image, file_ending, read_array, read_labels, write_image, write_labels
from ..label_files import renumbered
from ..progress import Progress, in_parallel, silent
from ..records import umask
from ..task import LABELS_CSV, write_dataset_json
from .source import Source, SourceCase, some, stored_layout

_COLOR_ENDINGS = (".png", ".bmp", ".tif", ".tiff")
_TIFF_ENDINGS = (".tif", ".tiff")


def build_task(
    source: Source, folder: Path, *, in_place: bool = False, workers: int = 2, progress: Progress = silent
) -> Path:
    """Write the task to `folder`, which must not exist, whole or not at all; returns `folder`.

    With `in_place` only dataset.json, labels.csv and cases.json are written and the images stay where they are.
    Raises TaskError when source files are missing, ImageError for damaged ones, StorageError when writing fails.
    """
    _require_files(source)
    with folder_made_whole(folder) as building:
        if in_place:
            _require_usable_in_place(source, workers, progress)
            listed = {"dataset": _listed(source)}
        else:
            _require_space(source, building)
            in_parallel(partial(_write_case, source, building), source.cases, workers, progress, "Copying cases")
            listed = {}
        _write_description(source, building, listed)
    return folder


@contextlib.contextmanager
def folder_made_whole(folder: Path) -> Iterator[Path]:
    """A temporary folder beside `folder` to fill; renamed to `folder` on success, removed on failure."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".making-", dir=folder.parent))
    except OSError as error:
        raise StorageError(_cannot_write(folder, error)) from error
    try:
        yield temporary
        temporary.chmod(0o777 & ~umask())
        temporary.rename(folder)
    except OSError as error:
        raise StorageError(_cannot_write(folder, error)) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def copy_file(source: Path, target: Path) -> None:
    """Copy one file, a .mhd with its voxels; raises TaskError when it cannot be read, StorageError when it cannot be written."""
    try:
        with source.open("rb"):
            pass
    except OSError as error:
        raise TaskError(f"{source} cannot be read ({error.strerror}); check its permissions.") from error
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.suffix == ".mhd":
            copy_image(source, target)
        else:
            shutil.copyfile(source, target)
    except OSError as error:
        raise StorageError(_cannot_write(target, error)) from error


def _write_case(source: Source, building: Path, case: SourceCase) -> None:
    images = building / f"images{case.group}"
    first_free = 0
    for path in case.images:
        first_free += _place_image(path, images, case.id, first_free, source)
    if case.labels is not None:
        _place_labels(case.labels, building / f"labels{case.group}" / (case.id + source.file_ending), source)


def _place_image(path: Path, folder: Path, case_id: str, channel: int, source: Source) -> int:
    """Copy or rewrite one image file from channel number `channel` on; returns how many channel files it became."""
    if not needs_rewriting(path, source):
        copy_file(path, folder / f"{case_id}_{channel:04d}{source.file_ending}")
        _copy_spacing(path, folder / f"{case_id}.json")
        return 1
    array, geometry = read_array(path)
    for offset, voxels in enumerate(array):
        write_image(folder / f"{case_id}_{channel + offset:04d}{source.file_ending}", voxels, geometry)
    return len(array)


def _place_labels(path: Path, target: Path, source: Source) -> None:
    if not source.values_changed and same_type(path, target):
        copy_file(path, target)
        _copy_spacing(path, target.with_name(target.name[: -len(source.file_ending)] + ".json"))
        return
    found = read_labels(path)
    write_labels(target, renumbered(found.array, source.values_changed), found.geometry)


def needs_rewriting(path: Path, source: Source) -> bool:
    """Whether nnU-Net's layout cannot take the image file as it is: another file type, or several channels in it."""
    if not same_type(path, source.file_ending):
        return True
    layout = stored_layout(path)
    holds_colors = layout.axes == 2 and file_ending(path) in _COLOR_ENDINGS and not source.split_colors
    return layout.axes == 4 or (layout.channels > 1 and not holds_colors)


def same_type(path: Path, other: Path | str) -> bool:
    """Whether two names mean the same file type; .tif and .tiff do."""
    endings = {file_ending(path), file_ending(other)}
    return len(endings) == 1 or endings <= set(_TIFF_ENDINGS)


def _copy_spacing(path: Path, target: Path) -> None:
    """nnU-Net keeps the voxel size of 3-D TIF files in a JSON file beside them."""
    if file_ending(path) in _TIFF_ENDINGS:
        name = path.name[: -len(file_ending(path))]
        found = [path.with_name(f"{text}.json") for text in (name, name[:-5])]
        sidecar = next((candidate for candidate in found if candidate.is_file()), None)
        if sidecar and not target.exists():
            copy_file(sidecar, target)


def _write_description(source: Source, building: Path, listed: dict) -> None:
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
    save_origin(_origin(source), building)


def _origin(source: Source) -> TaskOrigin:
    return TaskOrigin(
        source=str(source.folder),
        format=source.format,
        values_changed=source.values_changed,
        cases=tuple(
            CaseOrigin(case.id, tuple(str(path) for path in case.images), str(case.labels or ""))
            for case in source.cases
        ),
    )


def _listed(source: Source) -> dict:
    """nnU-Net's `dataset` entry: the training files where they are."""
    return {
        case.id: {"images": [str(path.absolute()) for path in case.images], "label": str(case.labels.absolute())}
        for case in source.cases
        if case.group == "Tr"
    }


def _require_files(source: Source) -> None:
    files = [path for case in source.cases for path in (*case.images, *([case.labels] if case.labels else ()))]
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
    return not same_type(case.labels, source.file_ending) or any(needs_rewriting(path, source) for path in case.images)


def _require_space(source: Source, building: Path) -> None:
    files = [path for case in source.cases for path in (*case.images, *([case.labels] if case.labels else ()))]
    needed, free = sum(path.stat().st_size for path in files), shutil.disk_usage(building).free
    if needed > free:
        raise StorageError(
            f"Copying {source.folder} needs {needed / 1e9:.1f} GB, but {building.parent} has {free / 1e9:.1f} GB free; "
            "choose another workspace, or use the data in place."
        )


def _cannot_write(path: Path, error: OSError) -> str:
    return f"Cannot write {path} ({error.strerror or error}); choose a folder with free space that you may write to."
