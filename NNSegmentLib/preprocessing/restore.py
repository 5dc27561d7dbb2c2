"""From the network's grid back to the input's: resample, paste into the crop box, undo the transposition.

Outputs are resampled slab by slab and class by class with a running maximum, so that memory does not grow with the
number of classes. nnU-Net's rule: logits are resampled, then the decision is made. Version 1 resampled probabilities;
the outputs of its configurations are probabilities.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from ..errors import ModelError
from ..labels import LabelSet, number_type
from ..planning.plan import Configuration, Resampling
from ..progress import in_parallel
from . import operators
from .prepared import Placement
from .resample import keeps_precision, prepared_shape, resample_labels, resample_to, separate_axis, spline_orders

_SPLIT = np.float32(2**13 + 1)
"""Multiplied by this and taken off again, a float32 loses the 13 of its 24 digits that a float16 lacks."""
_SLAB_VOXELS = 1 << 18
"""Voxels of the target that are worked on at once: a few arrays of this size stay in the processor's cache."""


def restore_labels(labels: np.ndarray, placement: Placement, resampling: Resampling | None = None) -> np.ndarray:
    """A label map (Z, Y, X) on the prepared grid brought to the input's grid; 0 outside the crop box.

    Labels below 0 (outside) become 0. `resampling` is linear voting unless given. Raises ModelError when the
    labels are not on the prepared grid.
    """
    _require_grid(labels.shape, placement)
    inside = np.maximum(labels, 0).astype(number_type(int(labels.max(initial=0))), copy=False)
    spacings = placement.spacing_mm, placement.original_spacing_mm
    inside = resample_labels(inside, placement.crop_shape, *spacings, resampling or Resampling(order=1))
    result = np.zeros(placement.geometry.shape, inside.dtype)
    _crop_of(result, placement)[...] = inside
    return result


def labels_from_logits(
    logits: np.ndarray, placement: Placement, configuration: Configuration, label_set: LabelSet, workers: int = 2
) -> np.ndarray:
    """The label map (Z, Y, X) on the input's grid from network outputs (n_outputs, Z, Y, X) on the prepared grid.

    The largest output wins, the first of equals; with regions every output above 0 (a probability above 0.5) is
    painted in `regions_class_order`. Voxels outside the crop box are 0. uint8, or uint16 for values of 255 and more. Raises
    ModelError when the outputs fit neither the label set nor the prepared grid.
    """
    _require_outputs(logits, placement, label_set)
    result = np.zeros(placement.geometry.shape, number_type(max(_painted_values(label_set))))
    grid = _grid(logits, placement, configuration)
    _decide(logits, grid, label_set, _crop_of(result, placement), workers, _certain(configuration))
    return result


def probabilities_from_logits(
    logits: np.ndarray, placement: Placement, configuration: Configuration, label_set: LabelSet, workers: int = 2
) -> np.ndarray:
    """Probabilities (n_outputs, Z, Y, X) float32 on the input's grid: softmax, or sigmoid with regions.

    Outside the crop box they are 0, the background's 1. Raises ModelError as `labels_from_logits`.
    """
    _require_outputs(logits, placement, label_set)
    grid = _grid(logits, placement, configuration)
    result = np.zeros((len(logits), *placement.geometry.shape), np.float32)
    if not label_set.has_regions:
        result[0] = 1.0
    inside = [_crop_of(channel, placement) for channel in result]
    activate = _activation(configuration, label_set)

    def fill(slab: slice) -> None:
        for channel, values in zip(inside, activate(np.stack(list(grid.scores(logits, slab)))), strict=True):
            channel[slab] = values

    in_parallel(fill, grid.slabs(), workers)
    return result


@dataclass(frozen=True)
class _Grid:
    """How outputs reach another grid: shapes and spacings (z, y, x) of both, and the rule."""

    shape: tuple[int, int, int]
    target: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    target_spacing_mm: tuple[float, float, float]
    resampling: Resampling

    @property
    def orders(self) -> tuple[int, int, int]:
        """Spline order along each axis."""
        order, order_z = spline_orders(self.resampling)
        apart = separate_axis(self.spacing_mm, self.target_spacing_mm, self.resampling.force_separate_z)
        return tuple(order_z if axis == apart else order for axis in range(3))

    def slabs(self) -> list[slice]:
        """Ranges along the first axis of the target; one for all when overshoot has to be limited."""
        depth, *plane = self.target
        step = depth if self._overshoots else max(1, _SLAB_VOXELS // int(np.prod(plane)))
        return [slice(start, min(start + step, depth)) for start in range(0, depth, step)]

    def scores(self, logits: np.ndarray, slab: slice) -> Iterator[np.ndarray]:
        """The resampled outputs of a slab, class by class: new float32 arrays (Z, Y, X).

        Those of half precision are rounded to it again, as in nnU-Net: then two are equal in one voxel of a few
        thousand, and the first wins.
        """
        resampled = self._resampled(logits, slab)
        is_rounded = logits.dtype == np.float16 and self.shape != self.target and keeps_precision(self.resampling)
        return map(_rounded_to_half, resampled) if is_rounded else resampled

    def _resampled(self, logits: np.ndarray, slab: slice) -> Iterator[np.ndarray]:
        if self._overshoots:
            return (self._whole(output) for output in logits)
        rows = operators.rows(self.shape[0], self.target[0], self.orders[0], slab.start, slab.stop)
        parts = [operators.blocks(*sizes) for sizes in zip(self.shape, self.target, self.orders, strict=True)]
        parts[0] = (rows.moved(),)
        changing = [axis for axis in range(3) if self.shape[axis] != self.target[axis]]
        return (_resized(output[rows.first : rows.last], changing, parts) for output in logits)

    def _whole(self, output: np.ndarray) -> np.ndarray:
        return resample_to(output[None], self.target, self.spacing_mm, self.target_spacing_mm, self.resampling)[0]

    @property
    def _overshoots(self) -> bool:
        return max(self.orders) > 1 and self.shape != self.target


def _grid(logits: np.ndarray, placement: Placement, configuration: Configuration) -> _Grid:
    spacings = placement.spacing_mm, placement.original_spacing_mm
    return _Grid(logits.shape[1:], placement.crop_shape, *spacings, configuration.resampling_probabilities)


def _resized(output: np.ndarray, axes: list[int], parts: list[tuple[operators.Block, ...]]) -> np.ndarray:
    scores = output.astype(np.float32)
    for axis in axes:
        scores = operators.apply(scores, axis, parts[axis])
    return scores


def _rounded_to_half(scores: np.ndarray) -> np.ndarray:
    """The float32 array, in place, with the eleven binary digits of float16: three operations, ten times faster than casts."""
    shifted = scores * _SPLIT
    scores -= shifted
    scores += shifted
    return scores


def _certain(configuration: Configuration) -> float:
    """The output that means one half."""
    return 0.5 if configuration.is_version_1 else 0.0


def _activation(configuration: Configuration, label_set: LabelSet) -> Callable[[np.ndarray], np.ndarray]:
    if configuration.is_version_1:
        return lambda probabilities: probabilities
    return _sigmoid if label_set.has_regions else _softmax


def _decide(
    logits: np.ndarray, grid: _Grid, label_set: LabelSet, result: np.ndarray, workers: int, certain: float
) -> None:
    """Fill `result` (a view of the target) with label values, slab by slab."""
    decide = partial(_painted, above=certain) if label_set.has_regions else _largest
    values = _painted_values(label_set)

    def fill(slab: slice) -> None:
        result[slab] = decide(grid.scores(logits, slab), values, result.dtype)

    in_parallel(fill, grid.slabs(), workers)


def _painted_values(label_set: LabelSet) -> tuple[int, ...]:
    return label_set.regions_class_order if label_set.has_regions else label_set.values


def _largest(scores: Iterator[np.ndarray], values: tuple[int, ...], dtype) -> np.ndarray:
    """The value of the largest output of each voxel, the first of equals."""
    best = next(scores)
    winner = np.zeros(best.shape, dtype)
    better, candidate = np.empty(best.shape, bool), np.empty(best.shape, dtype)
    for index, score in enumerate(scores, start=1):
        np.greater(score, best, out=better)
        np.maximum(score, best, out=best)
        # a later winner has a larger index: two vector operations, ten times faster than writing where `better`
        np.multiply(better.view(np.uint8), dtype.type(index), out=candidate, casting="unsafe")
        np.maximum(winner, candidate, out=winner)
    return winner if values == tuple(range(len(values))) else np.asarray(values, dtype)[winner]


def _painted(scores: Iterator[np.ndarray], values: tuple[int, ...], dtype, above: float) -> np.ndarray:
    """Each region's value where its output is above one half's, later regions over earlier ones."""
    labels = None
    for score, value in zip(scores, values, strict=True):
        labels = np.zeros(score.shape, dtype) if labels is None else labels
        labels[score > above] = value
    return labels


def _softmax(scores: np.ndarray) -> np.ndarray:
    scores -= scores.max(axis=0)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=0)
    return scores


def _sigmoid(scores: np.ndarray) -> np.ndarray:
    return 0.5 + 0.5 * np.tanh(0.5 * scores)  # the same function, without overflow of exp


def _crop_of(array: np.ndarray, placement: Placement) -> np.ndarray:
    """A view of the crop box of an array (Z, Y, X) on the input's grid, with the prepared array's axis order."""
    box = zip(placement.crop_start, placement.crop_shape, strict=True)
    return array.transpose(placement.transpose_forward)[tuple(slice(start, start + n) for start, n in box)]


def _require_outputs(logits: np.ndarray, placement: Placement, label_set: LabelSet) -> None:
    if len(logits) != label_set.n_outputs:
        raise ModelError(
            f"The labels of the task need {label_set.n_outputs} network outputs, found {len(logits)}; the model was "
            "trained for another label set."
        )
    _require_grid(logits.shape[1:], placement)


def _require_grid(shape: tuple[int, ...], placement: Placement) -> None:
    expected = prepared_shape(placement)
    if tuple(shape) != expected:
        raise ModelError(
            f"Expected {expected} voxels (z, y, x), the prepared grid of this case, found {tuple(shape)}; prepare and "
            "predict the case with the same plan."
        )
