"""Dice and cross-entropy for labels and for regions, with the ignore label and deep supervision (nnU-Net's rules)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch.nn import functional

from ..labels import LabelSet
from ..planning.architecture import supervision_weights
from .ranks import ALONE, Ranks

Outputs = torch.Tensor | Sequence[torch.Tensor]
Loss = Callable[[Outputs, torch.Tensor], torch.Tensor]
SMOOTH = 1e-5
"""Added to both sides of the Dice fraction."""
TOP_FRACTION = 0.1
"""Share of the worst voxels that the top-k cross-entropy averages."""


def make_loss(
    label_set: LabelSet,
    *,
    kind: str = "dice_ce",
    batch_dice: bool = False,
    device: torch.device | str = "cpu",
    ranks: Ranks = ALONE,
) -> Loss:
    """A function (outputs, target) → scalar; the lower the better, about −1 at its best with a Dice term.

    `outputs` are logits (B, n_outputs, *space), or a list of them from deep supervision, full resolution first.
    `target` holds label values (B, 1, *space), the ignore value included. `kind` is one of `run.LOSSES`.
    Of several ranks each has its samples of the batch, and all get the loss of the whole batch; only the worst tenth
    of the voxels is looked for on each rank by itself, as nnU-Net does.
    """
    return DeepSupervisionLoss(SegmentationLoss(kind, batch_dice, targets_of(label_set, device), ranks))


@dataclass(frozen=True)
class DeepSupervisionLoss:
    """The weighted sum of a loss over the network's resolutions, the coarsest left out."""

    loss: Loss

    def __call__(self, outputs: Outputs, target: torch.Tensor) -> torch.Tensor:
        if isinstance(outputs, torch.Tensor):
            return self.loss(outputs, target)
        weights = supervision_weights(len(outputs))
        terms = (
            weight * self.loss(output, nearest(target, output.shape[2:]))
            for weight, output in zip(weights, outputs, strict=True)
            if weight
        )
        return sum(terms)


def nearest(target: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Labels (B, 1, *space) on a coarser grid over the same box: the value at each new voxel's centre."""
    for axis, (n, new) in enumerate(zip(target.shape[2:], size, strict=True), start=2):
        if n != new:
            target = target.index_select(axis, _centres(n, new, target.device))
    return target


@lru_cache(maxsize=256)
def _centres(n: int, new: int, device: torch.device) -> torch.Tensor:
    """For each of `new` voxels, the one of `n` that holds its centre; kept, since copies to a card wait for it."""
    return ((torch.arange(new, dtype=torch.float64) + 0.5) * (n / new)).long().to(device)


@dataclass(frozen=True)
class Targets:
    """How label values become what the network's outputs are compared with."""

    table: torch.Tensor
    """Label value → output index (n_values,), or → membership of each region (n_values, n_outputs)."""
    ignore: int | None

    @property
    def has_regions(self) -> bool:
        return self.table.ndim == 2

    def counted(self, labels: torch.Tensor) -> torch.Tensor | None:
        """Where labels (B, N) are annotated; None stands for everywhere."""
        return None if self.ignore is None else labels != self.ignore

    def indices(self, labels: torch.Tensor) -> torch.Tensor:
        """Output indices (B, N) of labels (B, N), 0 for the ignore value."""
        return self.table[labels.long()]

    def members(self, labels: torch.Tensor) -> torch.Tensor:
        """Membership (B, n_outputs, N) of labels (B, N) in each region, none for the ignore value."""
        return self.table[labels.long()].movedim(-1, 1)


def targets_of(label_set: LabelSet, device: torch.device | str = "cpu") -> Targets:
    """The comparison that the labels ask for, on `device`: one output per value, or one per region."""
    ignore = label_set.ignore_value
    n_values = max((*label_set.values, ignore or 0)) + 1
    if label_set.has_regions:
        table = torch.zeros(n_values, label_set.n_outputs, dtype=torch.bool)
        for output, region in enumerate(label_set.targets):
            table[list(region), output] = True
    else:
        table = torch.zeros(n_values, dtype=torch.int64)
        table[list(label_set.values)] = torch.arange(len(label_set.values))
    return Targets(table.to(device), ignore)


@dataclass(frozen=True)
class SegmentationLoss:
    """The loss at one resolution."""

    kind: str
    batch_dice: bool
    targets: Targets
    ranks: Ranks = ALONE

    def __call__(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        logits, labels = logits.float().flatten(2), target.flatten(1)
        counted = self.targets.counted(labels)
        terms = self._region_terms if self.targets.has_regions else self._label_terms
        voxelwise, sums = terms(logits, labels, counted)
        parts = self.kind.split("_")
        loss = logits.new_zeros(())
        if "ce" in parts:
            loss = loss + self._mean(voxelwise, counted)
        if "topk" in parts:
            loss = loss + self._over_samples(_mean_of_worst(voxelwise), len(voxelwise))
        return loss + self._dice_term(*sums) if "dice" in parts else loss

    def _label_terms(self, logits, labels, counted):
        indices = self.targets.indices(labels)
        log_p = functional.log_softmax(logits, dim=1)
        log_of_true = log_p.gather(1, indices[:, None])[:, 0]  # (B, N)
        cross_entropy = -log_of_true if counted is None else -log_of_true * counted
        if "dice" not in self.kind.split("_"):
            return cross_entropy, None
        weights = torch.ones_like(log_of_true) if counted is None else counted.to(log_of_true.dtype)
        p = log_p.exp()
        n = p.shape[1]
        overlap = sums_by_index(log_of_true.exp() * weights, indices, n)
        predicted = p.sum(2) if counted is None else torch.einsum("bcn,bn->bc", p, weights)
        return cross_entropy, tuple(s[:, 1:] for s in (overlap, predicted, sums_by_index(weights, indices, n)))

    def _region_terms(self, logits, labels, counted):
        members = self.targets.members(labels).to(logits.dtype)
        cross_entropy = functional.binary_cross_entropy_with_logits(logits, members, reduction="none")
        p = logits.sigmoid()
        if counted is not None:
            cross_entropy, p = cross_entropy * counted[:, None], p * counted[:, None]
        return cross_entropy, ((p * members).sum(2), p.sum(2), members.sum(2))

    def _dice_term(self, overlap, predicted, true) -> torch.Tensor:
        """Minus the mean soft Dice of the foreground, from sums (B, classes) over space."""
        n = len(overlap)
        if self.batch_dice:
            overlap, predicted, true = (self.ranks.total(s.sum(0)) for s in (overlap, predicted, true))
        mean = ((2 * overlap + SMOOTH) / (predicted + true + SMOOTH).clamp(min=1e-8)).mean()
        return -mean if self.batch_dice else -self._over_samples(mean, n)

    def _mean(self, voxelwise: torch.Tensor, counted: torch.Tensor | None) -> torch.Tensor:
        """Mean of (B, N), or of regions (B, C, N), over the annotated voxels; 0 without any.

        With regions and an ignore label nnU-Net divides by the annotated voxels once, not once per region.
        """
        if counted is None:
            return self._over_samples(voxelwise.mean(), len(voxelwise))
        return self.ranks.total(voxelwise.sum()) / self.ranks.counted(counted.sum()).clamp(min=1)

    def _over_samples(self, mean: torch.Tensor, n: int) -> torch.Tensor:
        """The mean over all samples of the batch from that over our `n`."""
        if self.ranks.alone:
            return mean
        summed, samples = self.ranks.total(torch.stack([mean * n, mean.new_tensor(n)]))
        return summed / samples


def sums_by_index(values: torch.Tensor, indices: torch.Tensor, n: int) -> torch.Tensor:
    """Sums (B, n) of values (B, N) that share an index (B, N) below n."""
    if values.device.type == "cpu":
        return values.new_zeros(values.shape[0], n).scatter_add(1, indices, values)
    return sums_by_comparison(values, indices, n)


def sums_by_comparison(values: torch.Tensor, indices: torch.Tensor, n: int) -> torch.Tensor:
    """The same on graphics cards, whose threads would queue up at few sums."""
    same = indices[:, None] == torch.arange(n, device=indices.device)[:, None]
    return torch.where(same, values[:, None], 0).sum(2)


def _mean_of_worst(voxelwise: torch.Tensor) -> torch.Tensor:
    """Mean of the worst tenth of all voxels."""
    flat = voxelwise.flatten()
    return flat.topk(max(1, int(flat.numel() * TOP_FRACTION)), sorted=False).values.mean()
