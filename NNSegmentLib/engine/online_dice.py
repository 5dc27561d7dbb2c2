"""The quick Dice of an epoch: hard predictions on patches, counts summed over all of them (nnU-Net's pseudo Dice)."""

from __future__ import annotations

import math

import torch

from .losses import Targets
from .ranks import ALONE, Ranks


class OnlineDice:
    """Collects true and false voxels per class over the batches of one epoch."""

    def __init__(self, targets: Targets, ranks: Ranks = ALONE) -> None:
        self.targets, self.ranks = targets, ranks
        self._counts: torch.Tensor | None = None

    def add(self, logits: torch.Tensor, target: torch.Tensor) -> None:
        """Count a batch: logits (B, n_outputs, *space), target label values (B, 1, *space); ignored voxels left out."""
        n, labels = logits.shape[1], target.flatten(1)
        counted = self.targets.counted(labels)
        if self.targets.has_regions:
            counts = _region_counts(logits.flatten(2) > 0, self.targets.members(labels), counted)
        else:
            counts = _label_counts(logits.flatten(2).argmax(1), self.targets.indices(labels), counted, n)
        self._counts = counts if self._counts is None else self._counts + counts

    def per_class(self) -> tuple[float | None, ...]:
        """Dice of each foreground class over all ranks; None for one that was neither there nor predicted."""
        if self._counts is None:
            return ()
        return tuple(2 * tp / both if both else None for tp, both in self.ranks.counted(self._counts).T.tolist())


def mean_dice(per_class: tuple[float | None, ...]) -> float | None:
    """Mean over the classes that have a Dice; None without any."""
    known = [dice for dice in per_class if dice is not None and not math.isnan(dice)]
    return sum(known) / len(known) if known else None


def _label_counts(predicted: torch.Tensor, true: torch.Tensor, counted: torch.Tensor | None, n: int) -> torch.Tensor:
    """(2, n - 1): voxels in both, and voxels in prediction plus reference."""
    if counted is not None:
        predicted, true = predicted[counted], true[counted]
    confusion = torch.bincount((true * n + predicted).flatten(), minlength=n * n).reshape(n, n)
    return torch.stack((confusion.diagonal(), confusion.sum(0) + confusion.sum(1)))[:, 1:]


def _region_counts(predicted: torch.Tensor, true: torch.Tensor, counted: torch.Tensor | None) -> torch.Tensor:
    if counted is not None:
        predicted, true = predicted & counted[:, None], true & counted[:, None]
    return torch.stack(((predicted & true).sum((0, 2)), predicted.sum((0, 2)) + true.sum((0, 2))))
