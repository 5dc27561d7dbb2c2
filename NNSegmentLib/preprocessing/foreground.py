"""Where the targets are, so that training patches can be placed on them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ..labels import LabelSet, Region
from .prepared import ANNOTATED

SEED = 1234
AT_LEAST, SHARE = 10_000, 0.01
"""nnU-Net keeps 10 000 voxels of a target, or one in a hundred if that is more."""


def locate(labels: np.ndarray, label_set: LabelSet) -> dict[Region, np.ndarray]:
    """Target → up to `AT_LEAST` voxel indices (N, 3) int32 as (z, y, x); N is 0 for a target that does not occur.

    With an ignore label, `ANNOTATED` maps to voxels that are not ignored. Drawn without replacement by a fixed seed.
    """
    rng = np.random.default_rng(SEED)
    groups = _voxels_by_label(labels)
    found = {region: _drawn(rng, _union(groups, region), labels.shape) for region in label_set.targets}
    if label_set.ignore_value is not None:
        found[ANNOTATED] = _drawn(rng, np.flatnonzero(labels != label_set.ignore_value), labels.shape)
    return found


def _voxels_by_label(labels: np.ndarray) -> dict[int, np.ndarray]:
    """Label → flat indices of its voxels, background and outside left out; one pass however many labels there are."""
    voxels = np.flatnonzero(labels > 0)
    values = labels.reshape(-1)[voxels]
    voxels = voxels[np.argsort(values, kind="stable")]
    counts = np.bincount(values)
    stops = np.cumsum(counts)
    return {int(v): voxels[stops[v] - counts[v] : stops[v]] for v in np.flatnonzero(counts)}


def _union(groups: dict[int, np.ndarray], region: Iterable[int]) -> np.ndarray:
    present = [groups[value] for value in region if value in groups]
    return np.concatenate(present) if present else np.empty(0, np.intp)


def _drawn(rng: np.random.Generator, voxels: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    n = max(min(AT_LEAST, len(voxels)), int(np.ceil(len(voxels) * SHARE)))
    chosen = voxels[rng.choice(len(voxels), n, replace=False, shuffle=False)] if n < len(voxels) else voxels
    return np.stack(np.unravel_index(chosen, shape), axis=1).astype(np.int32)
