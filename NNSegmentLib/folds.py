"""Which cases train and which validate: nnU-Net's five folds, or those of a splits_final.json."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .errors import TaskError, some
from .given import fold_name
from .records import read_json, write_json

N_FOLDS = 5
SEED = 12345
"""nnU-Net's seed: the same ids give the same folds here and there."""
TRAINING_SHARE = 0.8
"""Of the cases, for folds beyond those listed."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fold:
    """Case ids for training and for validation."""

    train: tuple[str, ...]
    validation: tuple[str, ...]


def make_folds(case_ids: Sequence[str]) -> tuple[Fold, ...]:
    """Five folds in which every case validates once, equal to those nnU-Net makes of the same ids.

    Fewer cases than folds are left out one at a time; a single case trains and validates alike, with a warning.
    Raises TaskError without cases.
    """
    ids = sorted(case_ids)
    if not ids:
        raise TaskError("Folds need at least one case with labels, found none; add cases to the task.")
    if len(ids) == 1:
        _log.warning("The only case %s is used for training and for validation; its score says nothing.", ids[0])
        return (Fold((ids[0],), (ids[0],)),)
    order = np.arange(len(ids)) if len(ids) < N_FOLDS else _shuffled(len(ids))
    return tuple(_fold_without(ids, set(part.tolist())) for part in np.array_split(order, min(N_FOLDS, len(ids))))


def choose_fold(folds: Sequence[Fold], fold: int | str, case_ids: Sequence[str]) -> Fold:
    """The fold to train: a listed one, 'all' cases for both, or beyond the list a random 80:20 division.

    Raises SettingsError for something else than a number or 'all', TaskError when the fold names unknown cases.
    """
    ids = sorted(case_ids)
    if fold == "all":
        return Fold(tuple(ids), tuple(ids))
    fold = fold_name(fold)
    chosen = folds[fold] if fold < len(folds) else _random_fold(ids, fold)
    _require_known(chosen, ids, fold)
    return chosen


def save_folds(folds: Sequence[Fold], path: Path) -> None:
    """Write nnU-Net's splits_final.json; raises StorageError."""
    write_json(path, [{"train": list(fold.train), "val": list(fold.validation)} for fold in folds])


def load_folds(path: Path) -> tuple[Fold, ...]:
    """Read a splits_final.json, nnU-Net's, ours or written by hand; raises TaskError.

    A case that trains and validates in one fold is allowed, as in nnU-Net, with a warning.
    """
    values = read_json(path)
    if not isinstance(values, list) or not values:
        raise TaskError(
            f'{path} should be a list of folds like {{"train": ["a"], "val": ["b"]}}, found {values!r:.60}.'
        )
    folds = tuple(_parsed(entry, number, path) for number, entry in enumerate(values))
    for number, fold in enumerate(folds):
        if len(fold.train) > 1 and (both := sorted(set(fold.train) & set(fold.validation))):
            _log.warning("Fold %d trains and validates on %s; its score will be too high.", number, ", ".join(both[:3]))
    return folds


def _shuffled(n: int) -> np.ndarray:
    order = np.arange(n)
    np.random.RandomState(SEED).shuffle(order)
    return order


def _fold_without(ids: list[str], held_out: set[int]) -> Fold:
    return Fold(
        tuple(case_id for i, case_id in enumerate(ids) if i not in held_out),
        tuple(case_id for i, case_id in enumerate(ids) if i in held_out),
    )


def _random_fold(ids: list[str], fold: int) -> Fold:
    n_training = int(TRAINING_SHARE * len(ids))
    if n_training == 0:
        return Fold(tuple(ids), tuple(ids))
    chosen = np.random.RandomState(SEED + fold).choice(len(ids), n_training, replace=False).tolist()
    rest = _fold_without(ids, set(chosen)).train
    return Fold(tuple(ids[i] for i in chosen), rest)


def _require_known(fold: Fold, ids: list[str], number: int) -> None:
    unknown = sorted((set(fold.train) | set(fold.validation)) - set(ids))
    if unknown:
        raise TaskError(
            f"Fold {number} names {len(unknown)} cases the task does not have ({some(unknown)}); "
            "correct splits_final.json or delete it to have it made anew."
        )


def _parsed(entry: object, number: int, path: Path) -> Fold:
    if not isinstance(entry, dict) or not all(_are_ids(entry.get(key)) for key in ("train", "val")):
        raise TaskError(f'Fold {number} of {path} should be like {{"train": ["a"], "val": ["b"]}} with a case in each.')
    return Fold(tuple(entry["train"]), tuple(entry["val"]))


def _are_ids(value: object) -> bool:
    return isinstance(value, list) and len(value) > 0 and all(isinstance(case_id, str) for case_id in value)
