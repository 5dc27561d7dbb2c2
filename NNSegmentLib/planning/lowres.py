"""Whether a configuration at lower resolution is worth having, and at which: nnU-Net's rule."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .fit import Fit, fit_patch_and_batch
from .grid import Grid
from .presets import Preset

ENOUGH_CONTEXT = 0.25
"""A patch that covers this share of the median case needs no lower resolution."""
STEP = 1.03
"""Factor by which the voxels grow in the search."""
WORTHWHILE = 2
"""Full resolution must have at least this factor more voxels."""


@dataclass(frozen=True)
class Lowres:
    """The coarsest grid the search reached; `fit` is None when a single step was not needed."""

    spacing_mm: tuple[float, float, float]
    median_shape: tuple[int, int, int]
    fit: Fit | None
    covered: float
    """Share of the median case that a full-resolution patch covers."""
    reduction: float
    """How many times fewer voxels than full resolution."""

    @property
    def needed(self) -> bool:
        return self.fit is not None

    @property
    def worthwhile(self) -> bool:
        return self.needed and self.reduction >= WORTHWHILE


def find_lowres(grid: Grid, fullres: Fit, n_training: int, n_labels: int, preset: Preset) -> Lowres:
    """Enlarge the voxels, the smallest first, until a patch sees a quarter of the median case."""
    full, shape = np.asarray(grid.spacing_mm), np.asarray(grid.median_shape)
    all_voxels = math.prod(grid.median_shape)
    spacing, voxels, fit = full.copy(), all_voxels, None
    covered = patch_share = math.prod(fullres.patch_size) / all_voxels
    median = tuple(round(n) for n in grid.median_shape)
    while patch_share < ENOUGH_CONTEXT:
        finer = spacing.max() / spacing > 2
        spacing[finer if finer.any() else slice(None)] *= STEP
        voxels = float(np.prod(full / spacing * shape))
        median = tuple(max(1, round(n)) for n in full / spacing * shape)  # as when resampling: no axis vanishes
        fit = fit_patch_and_batch(spacing.tolist(), median, voxels * n_training, n_labels, preset)
        patch_share = math.prod(fit.patch_size) / voxels
    return Lowres(tuple(spacing.tolist()), median, fit, covered, all_voxels / voxels)
