"""Which case and which place each patch of a batch comes from; nnU-Net's rules, no voxel is read here.

A patch is cut, and possibly rotated and scaled, inside a larger *extraction window* around the same centre.
All places are voxel indices (z, y, x); a 2-d patch is a window of one slice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..geometry import Shape
from ..labels import Region
from ..preprocessing.prepared import ANNOTATED


@dataclass(frozen=True)
class Share:
    """The part of every batch that one of several training processes works on."""

    rank: int = 0
    ranks: int = 1

    def of(self, batch_size: int) -> range:
        """Its samples; when the batch cannot be divided evenly, the first ranks get one more (nnU-Net's rule)."""
        whole, rest = divmod(batch_size, self.ranks)
        start = self.rank * whole + min(self.rank, rest)
        return range(start, start + whole + (self.rank < rest))


@dataclass(frozen=True)
class PatchSampling:
    """How the patches of a batch are chosen."""

    patch_size: Shape
    """Voxels (z, y, x) the network sees; z is 1 for 2-d."""
    extraction_size: Shape
    """Voxels of the window the patch is taken from; equal to the patch without augmentation."""
    batch_size: int
    foreground_fraction: float
    annotated_only: bool = False
    """Whether patches that need not hold foreground are centred on an annotated voxel (tasks with an ignore label)."""

    def forced(self, index: int) -> bool:
        """Whether sample `index` of a batch must be centred on foreground: the last ones are."""
        return index >= round(self.batch_size * (1 - self.foreground_fraction))

    def centre(self, corner: Sequence[int]) -> tuple[float, float, float]:
        """Centre of the extraction window at `corner` in continuous voxel indices; rotations turn about it."""
        return tuple(c + (n - 1) / 2 for c, n in zip(corner, self.extraction_size, strict=True))

    def patch_corner(self, corner: Sequence[int]) -> Shape:
        """Lowest voxel of the plain patch in the middle of the extraction window at `corner`."""
        sizes = zip(corner, self.extraction_size, self.patch_size, strict=True)
        return tuple(c + large // 2 - small // 2 for c, large, small in sizes)

    def corner_bounds(self, shape: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest corner (inclusive) of the extraction window in a case of `shape`; both may be negative."""
        shape, extraction = np.asarray(shape), np.asarray(self.extraction_size)
        pad = extraction - np.asarray(self.patch_size)
        pad = np.where(pad + shape < extraction, extraction - shape, pad)
        return -((pad + 1) // 2), shape + pad // 2 + pad % 2 - extraction


def batch_ids(rng: np.random.Generator, ids: Sequence[str], sampling: PatchSampling) -> tuple[str, ...]:
    """The cases of one batch, drawn uniformly with replacement."""
    return tuple(ids[i] for i in rng.integers(len(ids), size=sampling.batch_size))


def draw_corner(
    rng: np.random.Generator,
    sampling: PatchSampling,
    index: int,
    shape: Sequence[int],
    foreground: Mapping[Region, np.ndarray],
) -> Shape:
    """Corner of the extraction window of sample `index` of a batch, in a case of `shape` (z, y, x)."""
    low, high = sampling.corner_bounds(shape)
    voxel = _forced_voxel(rng, foreground) if sampling.forced(index) else None
    if not sampling.forced(index) and sampling.annotated_only:
        voxel = _random_voxel(rng, foreground.get(ANNOTATED))
    if voxel is None:
        return tuple(int(v) for v in rng.integers(low, high + 1))
    # no upper limit: a voxel at the far border keeps its place in the middle, the rest is padding
    return tuple(int(v) for v in np.maximum(low, voxel - np.asarray(sampling.extraction_size) // 2))


def _forced_voxel(rng: np.random.Generator, foreground: Mapping[Region, np.ndarray]) -> np.ndarray | None:
    """A voxel of a target chosen uniformly, so that small structures are seen as often as large ones."""
    targets = [region for region, voxels in foreground.items() if len(voxels)]
    targets = [region for region in targets if region != ANNOTATED] or targets
    return _random_voxel(rng, foreground[targets[rng.integers(len(targets))]]) if targets else None


def _random_voxel(rng: np.random.Generator, voxels: np.ndarray | None) -> np.ndarray | None:
    return None if voxels is None or not len(voxels) else np.asarray(voxels[rng.integers(len(voxels))], int)
