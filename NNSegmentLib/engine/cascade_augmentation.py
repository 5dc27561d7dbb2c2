"""The previous stage's labels as network input, disturbed in training so that the network does not trust them blindly.

Masks are one channel per foreground label, (L, Z, Y, X) bool for one sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

_FAR = 20000
"""A squared distance beyond all radii whose sums still fit 16 bits."""
OPERATIONS = ("dilation", "erosion", "closing", "opening")


@dataclass(frozen=True)
class CascadeRules:
    """How often and how strongly the previous stage's labels are disturbed; nnU-Net's values."""

    operation_probability: float = 0.4
    radius: tuple[float, float] = (1.0, 8.0)
    """Range of the ball's radius in voxels."""
    removal_probability: float = 0.2
    label_probability: float = 0.5
    largest_removed: float = 0.15
    """Components up to this share of the patch may be removed."""


@dataclass(frozen=True)
class Operation:
    """One binary operation on one label."""

    label: int
    """Channel of the mask."""
    name: str
    radius: float


@dataclass(frozen=True)
class Removal:
    """Remove one connected component of one label."""

    label: int
    place: float
    """Which of the components in question: this share of the way through their list, in [0, 1)."""


@dataclass(frozen=True)
class Disturbance:
    """What happens to one sample, in order."""

    operations: tuple[Operation, ...]
    removals: tuple[Removal, ...]


def draw_disturbance(rng: np.random.Generator, n_labels: int, rules: CascadeRules) -> Disturbance:
    """What happens to one sample with `n_labels` foreground labels."""
    operations, removals = (), ()
    if rng.random() < rules.operation_probability:
        operations = tuple(
            Operation(label, OPERATIONS[rng.integers(len(OPERATIONS))], float(rng.uniform(*rules.radius)))
            for label in _some_labels(rng, n_labels, rules)
        )
    if rng.random() < rules.removal_probability:
        removals = tuple(Removal(label, float(rng.random())) for label in _some_labels(rng, n_labels, rules))
    return Disturbance(operations, removals)


def _some_labels(rng: np.random.Generator, n_labels: int, rules: CascadeRules) -> list[int]:
    """About half of the labels in random order."""
    return [int(label) for label in rng.permutation(n_labels) if rng.random() < rules.label_probability]


def masks_of(labels: torch.Tensor, values: Sequence[int]) -> torch.Tensor:
    """Label map (..., Z, Y, X) → one boolean channel per value (..., L, Z, Y, X)."""
    return torch.stack([labels == value for value in values], dim=-4)


def disturb(masks: torch.Tensor, disturbance: Disturbance, rules: CascadeRules) -> torch.Tensor:
    """Masks (L, Z, Y, X) after the drawn operations and removals; the argument is left as it is."""
    masks = masks.clone()
    for operation in disturbance.operations:
        changed = morphed(masks[operation.label], operation.name, operation.radius)
        masks &= ~(changed & ~masks[operation.label])
        masks[operation.label] = changed
    for removal in disturbance.removals:
        mask = masks[removal.label]
        mask &= ~_component(mask, removal.place, rules.largest_removed * mask.numel())
    return masks


def morphed(mask: torch.Tensor, operation: str, radius: float) -> torch.Tensor:
    """A mask (Z, Y, X) dilated, eroded, closed or opened with a ball (a disk in a single slice) of `radius` voxels.

    Beyond the border nothing grows in and nothing is eaten away.
    """
    if operation == "dilation":
        return _within(mask, radius)
    if operation == "erosion":
        return ~_within(~mask, radius)
    if operation == "closing":
        return ~_within(~_within(mask, radius), radius)
    return _within(~_within(~mask, radius), radius)


def _within(mask: torch.Tensor, radius: float) -> torch.Tensor:
    """Whether a voxel of (Z, Y, X) lies at most `radius` from the mask: exact squared distances, one axis at a time."""
    distance = torch.where(mask, 0, _FAR).to(torch.int16)
    for axis in range(mask.ndim):
        distance = _nearest_along(distance, axis, min(int(radius), mask.shape[axis] - 1))
    return distance <= radius**2


def _nearest_along(distance: torch.Tensor, axis: int, reach: int) -> torch.Tensor:
    """Lower envelope of the parabolas over one axis, up to `reach` voxels away."""
    nearest, n = distance.clone(), distance.shape[axis]
    for step in range(1, reach + 1):
        for to, source in ((0, step), (step, 0)):
            target = nearest.narrow(axis, to, n - step)
            torch.minimum(target, distance.narrow(axis, source, n - step) + step**2, out=target)
    return nearest


def _component(mask: torch.Tensor, place: float, largest: float) -> torch.Tensor:
    """One connected component with fewer than `largest` voxels as a mask; empty when there is none."""
    from scipy.ndimage import generate_binary_structure, label

    parts, count = label(mask.cpu().numpy(), generate_binary_structure(mask.ndim, mask.ndim))
    sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:]
    small = np.flatnonzero(sizes < largest) + 1
    chosen = parts == small[int(place * len(small))] if len(small) else np.zeros(parts.shape, bool)
    return torch.from_numpy(chosen).to(mask.device)
