"""Several predictions of the same cases averaged: the mean of their probabilities decides each voxel."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import ImageError, InputError, some
from ..evaluation import label_files
from ..folders import visible
from ..geometry import Geometry
from ..image import REORIENTING_READERS, file_ending, read_geometry, read_labels
from ..labels import LabelSet
from ..prediction import Prediction, save_prediction
from ..probability_files import load_probabilities
from ..progress import Progress, in_parallel, silent
from ..records import copy_whole
from ..scores import case_id

_CARDS = ("dataset.json", "plans.json")


@dataclass(frozen=True)
class EnsembleCase:
    """One case to average: a probability file per member, and a label map that has the grid and the file type."""

    case_id: str
    probabilities: tuple[Path, ...]
    labels: Path


def mean_probabilities(arrays: Iterable[np.ndarray]) -> np.ndarray:
    """Voxelwise mean, float32, of arrays (n_outputs, Z, Y, X), held two at a time; raises ImageError when shapes differ."""
    total, n = None, 0
    for array in arrays:
        if total is None:
            total = array.astype(np.float32)
        elif array.shape != total.shape:
            raise ImageError(f"Probabilities to average must have one shape, found {total.shape} and {array.shape}.")
        else:
            total += array
        n += 1
    if total is None:
        raise InputError("There is nothing to average; give at least one prediction.")
    total /= n
    return total


def ensemble_folders(
    folders: Sequence[Path],
    output: Path,
    label_set: LabelSet,
    *,
    file_ending: str | None = None,
    reader: str = "",
    save_probabilities: bool = False,
    workers: int = 2,
    progress: Progress = silent,
) -> tuple[Path, ...]:
    """Average the CASE.npz of several folders into label maps in `output`, on the grid of the first folder's files.

    Raises InputError naming the cases whose probabilities are missing, ImageError when shapes do not fit.
    """
    cases = ensemble_cases(folders, file_ending)
    for card in _CARDS:
        if (Path(folders[0]) / card).is_file():
            copy_whole(Path(folders[0]) / card, Path(output) / card)
    return write_ensemble(
        cases,
        output,
        label_set,
        reader=reader,
        save_probabilities=save_probabilities,
        workers=workers,
        progress=progress,
    )


def ensemble_cases(folders: Sequence[Path], ending: str | None = None) -> tuple[EnsembleCase, ...]:
    """The cases of prediction folders, all of which must have probabilities in each folder; raises InputError."""
    if not folders:
        raise InputError("There is nothing to average; give at least one folder of predictions.")
    folders = [Path(folder) for folder in folders]
    labels = {case_id(path): path for path in label_files(folders[0], ending)}
    found = [{path.stem: path for path in visible(folder, "*.npz")} for folder in folders]
    ids = sorted(set(labels).union(*found))
    for folder, of_folder in zip(folders, found, strict=True):
        _require(
            ids, of_folder, f"probabilities (CASE.npz) in {folder}", "predict or validate with --save-probabilities"
        )
    _require(ids, labels, f"a label map in {folders[0]}", "predict these cases again")
    return tuple(EnsembleCase(i, tuple(of_folder[i] for of_folder in found), labels[i]) for i in ids)


def write_ensemble(
    cases: Sequence[EnsembleCase],
    output: Path,
    label_set: LabelSet,
    *,
    reader: str = "",
    save_probabilities: bool = False,
    workers: int = 2,
    progress: Progress = silent,
) -> tuple[Path, ...]:
    """Average and write the label maps (and CASE.npz, CASE.pkl when `save_probabilities`) of all cases; returns the label maps."""

    def average(case: EnsembleCase) -> Path:
        mean = mean_probabilities(load_probabilities(path, label_set.n_outputs) for path in case.probabilities)
        geometry = _geometry(case, reader)
        if mean.shape[1:] != geometry.shape:
            raise ImageError(
                f"{case.probabilities[0]} has {mean.shape[1:]} voxels (z, y, x), {case.labels} {geometry.shape}; "
                "predict the case again with all models."
            )
        path = Path(output) / (case.case_id + file_ending(case.labels))
        labels = label_set.decide(mean, probabilities=True)
        prediction = Prediction(labels, geometry, label_set, mean if save_probabilities else None)
        save_prediction(prediction, path, read_geometry(case.labels))
        return path

    return tuple(in_parallel(average, cases, workers, progress, "averaging"))


def _geometry(case: EnsembleCase, reader: str) -> Geometry:
    """The grid of the probabilities: re-oriented as the label map was for the network."""
    return read_labels(case.labels, reader).geometry if reader in REORIENTING_READERS else read_geometry(case.labels)


def _require(ids: Sequence[str], found: dict[str, Path], what: str, advice: str) -> None:
    missing = [i for i in ids if i not in found]
    if missing:
        raise InputError(
            f"An ensemble needs {what}, missing for {len(missing)} of {len(ids)} cases ({some(missing)}); {advice}."
        )
