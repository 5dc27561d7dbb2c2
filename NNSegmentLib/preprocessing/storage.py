"""Prepared cases on disk: arrays that are read in parts through the page cache, and JSON for where they lie.

CASE.npy (float32, C, Z, Y, X) · CASE_seg.npy (Z, Y, X) · CASE_foreground.npz · CASE.json (the placement).
CASE.json is written last: a case with it is complete, or one that is just prepared again, file by file, while a training
reads it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..array_files import DAMAGED
from ..errors import InputError, StorageError, TaskError
from ..folders import visible
from ..labels import number_type, parse_region_key, region_key
from ..records import from_json, read_json, remove, to_json, write_json, written_whole
from .prepared import Placement, PreparedCase


def prepared_files(folder: Path, case_id: str) -> tuple[Path, Path, Path, Path]:
    """Where the image, labels, foreground and placement of a prepared case are."""
    folder = Path(folder)
    endings = (".npy", "_seg.npy", "_foreground.npz", ".json")
    return tuple(folder / (case_id + ending) for ending in endings)


def save_prepared(prepared: PreparedCase, folder: Path) -> None:
    """Write a prepared case; labels and foreground only if it has labels. Raises StorageError."""
    image, labels, foreground, placement = prepared_files(folder, prepared.id)
    if prepared.labels is None:
        _forget(placement, labels, foreground)
    _save_array(image, prepared.image)
    if prepared.labels is not None:
        _save_array(labels, prepared.labels)
        with written_whole(foreground) as temporary:
            np.savez(temporary, **{region_key(region): voxels for region, voxels in prepared.foreground.items()})
    write_json(placement, to_json(prepared.placement))


@dataclass(frozen=True)
class PreparedStore:
    """The prepared cases of one configuration."""

    folder: Path

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the complete cases, sorted."""
        return tuple(sorted(path.stem for path in visible(self.folder, "*.json") if path.with_suffix(".npy").is_file()))

    def open(self, case_id: str) -> PreparedCase:
        """A case whose image and labels are memory-mapped, read-only.

        Raises TaskError when a file is missing or holds something else.
        """
        image, labels, foreground, placement = prepared_files(self.folder, case_id)
        where = _open_placement(placement)
        array = _open_array(image)
        _require(image, "an image (C, Z, Y, X) of 32-bit numbers", array.ndim == 4 and array.dtype == np.float32)
        if not labels.is_file():
            return PreparedCase(case_id, array, None, where)
        segmentation = _open_array(labels)
        fits = segmentation.shape == array.shape[1:] and segmentation.dtype.kind in "iu"
        _require(labels, f"labels of {' × '.join(map(str, array.shape[1:]))} voxels", fits)
        return PreparedCase(case_id, array, segmentation, where, _open_foreground(foreground))


def save_previous_stage(labels: np.ndarray, folder: Path, case_id: str) -> None:
    """Keep the previous stage's segmentation (Z, Y, X) on the prepared grid, for a cascade; raises StorageError."""
    kind = number_type(labels.max(initial=0))
    _save_array(previous_stage_file(folder, case_id), labels.astype(kind, copy=False))


def load_previous_stage(folder: Path, case_id: str) -> np.ndarray:
    """The segmentation (Z, Y, X) kept by `save_previous_stage`, memory-mapped; raises TaskError when it is missing."""
    advice = "train and validate the previous stage on all folds first"
    return _open_array(previous_stage_file(folder, case_id), advice, advice)


def previous_stage_file(folder: Path, case_id: str) -> Path:
    """Where the previous stage's segmentation of a case is kept."""
    return Path(folder) / (case_id + ".npy")


def _forget(*paths: Path) -> None:
    """Remove what an earlier preparation left and this one lacks."""
    for path in paths:
        try:
            remove(path)
        except OSError as error:
            raise StorageError(
                f"Cannot replace {path} ({error.strerror}); choose a folder you may write to."
            ) from error


def _save_array(path: Path, array: np.ndarray) -> None:
    with written_whole(path) as temporary:
        np.save(temporary, np.ascontiguousarray(array), allow_pickle=False)


_PREPARE_AGAIN = "run 'nnsegment preprocess' again"
_PREPARE_ANEW = f"delete that file and {_PREPARE_AGAIN}"
"""Preparing keeps what is there."""


def _open_array(path: Path, missing: str = _PREPARE_AGAIN, damaged: str = _PREPARE_ANEW) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise TaskError(f"Expected the array {path}, found nothing there; {missing}.") from error
    except DAMAGED as error:
        raise TaskError(f"{path} should hold an array but is damaged or incomplete; {damaged}.") from error


def _require(path: Path, what: str, is_so: bool) -> None:
    """Raises TaskError for an array that nothing here has prepared."""
    if not is_so:
        raise TaskError(f"{path} should hold {what}, found something else; {_PREPARE_ANEW}.")


def _open_foreground(path: Path) -> dict:
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as found:
            voxels = {parse_region_key(key): found[key] for key in found.files}
    except FileNotFoundError as error:
        raise TaskError(f"Expected the foreground voxels {path}, found nothing there; {_PREPARE_AGAIN}.") from error
    except DAMAGED as error:
        raise TaskError(f"{path} should hold foreground voxels but is damaged; {_PREPARE_ANEW}.") from error
    are_places = all(
        places.ndim == 2 and places.shape[1] == 3 and places.dtype.kind in "iu" for places in voxels.values()
    )
    _require(path, "the places (z, y, x) of foreground voxels", are_places)
    return voxels


def _open_placement(path: Path) -> Placement:
    try:
        return from_json(Placement, read_json(path))
    except InputError as error:
        if not path.exists():
            raise TaskError(f"{str(error).rstrip('.')}; {_PREPARE_AGAIN}.") from error
        reason = str(error).rstrip(".")
        raise TaskError(f"{path} should tell where a prepared case lies ({reason}); {_PREPARE_ANEW}.") from error
