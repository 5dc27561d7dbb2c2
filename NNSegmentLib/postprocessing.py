"""Keeping only the largest component of what should be one piece, where cross-validation shows that it helps."""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from .evaluation import (
    SUMMARY,
    CaseScores,
    Measure,
    Scores,
    evaluate_files,
    label_files,
    measured,
    pair_with_references,
    read_pair,
    save_scores,
)
from .image import LabelMap, read_labels, write_labels
from .labels import LabelSet, Region
from .metrics import Counts, tabulate
from .postprocessing_rules import KeepLargest, PostProcessing, load_postprocessing, save_postprocessing
from .prediction import Prediction
from .progress import Progress, in_parallel, silent
from .scores import case_id, nan_mean, plain_mean

__all__ = [
    "KeepLargest", "PostProcessing", "apply_postprocessing", "apply_postprocessing_to_folder",
    "determine_postprocessing", "last_step", "load_postprocessing", "remove_all_but_largest_component",
]  # fmt: skip


def remove_all_but_largest_component(labels: np.ndarray, region: Region, by_faces: bool = False) -> np.ndarray:
    """Labels (Z, Y, X) where, of the voxels with a value in `region`, only the largest piece is left.

    Voxels that touch at a corner belong together, or `by_faces` only those that share a face; pieces of equal size all
    stay; what goes becomes 0.
    The argument itself is returned when nothing goes.
    """
    from scipy.ndimage import generate_binary_structure, label

    mask = np.isin(labels, region)
    box = _box(mask)
    pieces, n = label(mask[box], generate_binary_structure(3, 1 if by_faces else 3)) if mask.any() else (None, 0)
    if n < 2:
        return labels
    sizes = np.bincount(pieces.ravel())
    small = sizes < sizes[1:].max()
    small[0] = False
    if not small.any():
        return labels
    cleaned = labels.copy()
    cleaned[box][small[pieces]] = 0
    return cleaned


def apply_postprocessing(labels: np.ndarray, postprocessing: PostProcessing) -> np.ndarray:
    """Labels (Z, Y, X) after all steps."""
    for step in postprocessing.steps:
        labels = remove_all_but_largest_component(labels, step.values, step.by_faces)
    return labels


def last_step(rules: Path | None) -> Callable[[Prediction], Prediction]:
    """What is done to every prediction of a model: the post-processing in the file `rules`, or nothing without one.

    Raises what `load_postprocessing` does.
    """
    if rules is None:
        return lambda prediction: prediction
    chosen = load_postprocessing(rules)
    return lambda prediction: replace(prediction, labels=apply_postprocessing(prediction.labels, chosen))


def apply_postprocessing_to_folder(
    predictions: Path,
    output: Path,
    postprocessing: PostProcessing,
    *,
    file_ending: str | None = None,
    workers: int = 2,
    progress: Progress = silent,
) -> tuple[Path, ...]:
    """Write every label map of a folder, post-processed, into `output`; returns the files.

    Raises ImageError for an unreadable file or a folder without label maps.
    """

    def clean(path: Path) -> Path:
        found = read_labels(path)
        write_labels(Path(output) / path.name, apply_postprocessing(found.array, postprocessing), found.geometry)
        return Path(output) / path.name

    return tuple(in_parallel(clean, label_files(predictions, file_ending), workers, progress, "post-processing"))


def determine_postprocessing(
    predictions: Path,
    references: Path,
    label_set: LabelSet,
    *,
    scores: Scores | None = None,
    file_ending: str | None = None,
    reader: str = "",
    workers: int = 2,
    progress: Progress = silent,
) -> PostProcessing:
    """Try nnU-Net's component removals on a folder of predictions and keep those that raise the Dice.

    Removing all but the largest foreground piece must raise the mean and lower no target; then each target by itself
    must raise its own Dice. Writes postprocessing.json and .pkl, summary.json (unless its `scores` are given) and
    the folder postprocessed/ with its own summary.json. Raises ImageError as `evaluate_folder` does.
    """
    predictions = Path(predictions)
    measure = Measure.of(label_set)
    pairs = pair_with_references(label_files(predictions, file_ending), references)
    if scores is None:
        scores = evaluate_files(pairs, measure, reader=reader, workers=workers, progress=progress)
        save_scores(scores, predictions / SUMMARY)
    held = in_parallel(lambda pair: _hold(pair, measure, reader), pairs, workers, progress, "reading predictions")
    found = _Search(measure, workers, progress).run(held)
    after = _write_postprocessed(pairs, predictions / "postprocessed", found, measure, workers, progress)
    save_postprocessing(found, predictions, scores, after)
    return found


@dataclass(frozen=True)
class _HeldCase:
    """A case in memory: both maps inside the box of the predicted foreground, compressed; outside nothing changes."""

    prediction: bytes
    reference: bytes
    shape: tuple[int, int, int]
    types: tuple[np.dtype, np.dtype]
    n_ref: tuple[int, ...]
    """Reference voxels of each target in the whole image."""
    n_voxels: int
    """Voxels of the whole image that count."""

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        packed = zip((self.prediction, self.reference), self.types, strict=True)
        return tuple(np.frombuffer(zlib.decompress(data), kind).reshape(self.shape) for data, kind in packed)


def _hold(pair: tuple[Path, Path], measure: Measure, reader: str) -> _HeldCase:
    prediction, reference = (labels.array for labels in read_pair(*pair, reader))
    table = tabulate(prediction, reference, measure.ignore)
    n_ref = tuple(table.counts(target).n_ref for target in measure.targets)
    box = _box(prediction > 0)
    inside = prediction[box], reference[box]
    return _HeldCase(
        *map(_packed, inside), inside[0].shape, tuple(a.dtype for a in inside), n_ref, int(table.voxels.sum())
    )


def _packed(array: np.ndarray) -> bytes:
    return zlib.compress(array.tobytes(), level=1)


@dataclass(frozen=True)
class _Trial:
    """All cases after some steps, and the mean Dice of each target."""

    steps: tuple[KeepLargest, ...]
    cases: tuple[_HeldCase, ...]
    dice: tuple[float, ...]

    def better_than(self, other: _Trial) -> bool:
        """Whether the mean is higher and no target lower; never where a target is nowhere, as its mean is none then."""
        lower = any(mine < theirs for mine, theirs in zip(self.dice, other.dice, strict=True))
        return plain_mean(self.dice) > plain_mean(other.dice) and not lower


@dataclass(frozen=True)
class _Search:
    """nnU-Net's order of trials over cases held in memory."""

    measure: Measure
    workers: int
    progress: Progress

    def run(self, cases: Sequence[_HeldCase]) -> PostProcessing:
        """The steps that help."""
        before = self._try(_Trial((), tuple(cases), ()), None)
        targets, keys = self.measure.targets, self.measure.keys
        together = self._try(before, KeepLargest(targets, is_list=True))
        best = together if together.better_than(before) else before
        for i, target in enumerate(targets if len(targets) > 1 else ()):
            alone = self._try(best, KeepLargest((target,), is_list=keys[i].startswith("(")))
            best = alone if alone.dice[i] > best.dice[i] else best
        return PostProcessing(best.steps)

    def _try(self, start: _Trial, step: KeepLargest | None) -> _Trial:
        done = in_parallel(
            lambda case: self._apply(case, step), start.cases, self.workers, self.progress, "trying post-processing"
        )
        cases, counts = zip(*done, strict=True)
        dice = tuple(nan_mean(c.dice for c in of_target) for of_target in zip(*counts, strict=True))
        return _Trial(start.steps + ((step,) if step else ()), cases, dice)

    def _apply(self, case: _HeldCase, step: KeepLargest | None) -> tuple[_HeldCase, list[Counts]]:
        prediction, reference = case.arrays()
        cleaned = remove_all_but_largest_component(prediction, step.values) if step else prediction
        counts = _counts(cleaned, reference, case, self.measure.targets, self.measure.ignore)
        return (case if cleaned is prediction else replace(case, prediction=_packed(cleaned))), counts


def _counts(prediction, reference, case: _HeldCase, targets: Sequence[Region], ignore: int | None) -> list[Counts]:
    """Counts over the whole image; outside the box there is nothing predicted."""
    table = tabulate(prediction, reference, ignore)
    inside = [table.counts(target) for target in targets]
    return [
        Counts(c.tp, c.fp, n_ref - c.tp, case.n_voxels - c.fp - n_ref)
        for c, n_ref in zip(inside, case.n_ref, strict=True)
    ]


def _write_postprocessed(pairs, folder: Path, postprocessing, measure: Measure, workers: int, progress) -> Scores:
    """Write and score the post-processed predictions, reading each file once."""

    def clean(pair: tuple[Path, Path]) -> CaseScores:
        prediction, reference = read_pair(*pair)
        cleaned = LabelMap(apply_postprocessing(prediction.array, postprocessing), prediction.geometry)
        write_labels(folder / pair[0].name, cleaned.array, cleaned.geometry)
        return CaseScores(case_id(pair[0]), measured(cleaned, reference, measure), folder / pair[0].name, pair[1])

    shutil.rmtree(folder, ignore_errors=True)
    cases = in_parallel(clean, pairs, workers, progress, "writing post-processed predictions")
    scores = measure.scores(cases)
    save_scores(scores, folder / SUMMARY)
    return scores


def _box(mask: np.ndarray) -> tuple[slice, slice, slice]:
    """The smallest box (z, y, x) around a mask; empty when the mask is."""
    spans = []
    for axis in range(3):
        used = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        spans.append(slice(int(used[0]), int(used[-1]) + 1) if used.size else slice(0, 0))
    return tuple(spans)
