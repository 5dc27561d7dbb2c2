"""How one batch is made: choose cases and places, read the patches, augment them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..geometry import Shape
from ..preflight import VOXELS_TURNED_TOGETHER
from ..preprocessing.prepared import OUTSIDE
from .augmentation import Augmentation
from .cases import Cases, LoadedCase, cut
from .reference_augmentation import ReferenceAugmentation
from .sampling import PatchSampling, Share, batch_ids, draw_corner
from .spatial import draw_matrix, warped_patches

DAMAGE = (OSError, ValueError, TypeError, LookupError, EOFError)
"""What reading a damaged case raises."""


Place = tuple[Shape, np.ndarray | None]
"""Corner of a sample's extraction window, and how the patch in it is turned and scaled."""


@dataclass(frozen=True)
class Batch:
    """Patches and their labels."""

    image: torch.Tensor
    """(B, C, [Z,] Y, X) float32; in a cascade the channels of the previous stage's labels come last."""
    target: torch.Tensor
    """(B, 1, [Z,] Y, X) int16 label values, the ignore value included; 0 beyond the case."""

    def moved(self, device: torch.device) -> Batch:
        """The batch on `device`."""
        return Batch(self.image.to(device), self.target.to(device))


@dataclass(frozen=True)
class BatchRecipe:
    """All that is needed to make a batch from a random generator; goes to loader processes as it is."""

    cases: Cases
    ids: tuple[str, ...]
    sampling: PatchSampling
    augmentation: Augmentation | ReferenceAugmentation
    planes: bool
    """Whether patches are slices (2d)."""
    device: torch.device
    """Where patches are augmented."""
    share: Share = Share()
    """Which samples of each batch are made here."""

    def make(self, seed: int, number: int) -> Batch:
        """Draw batch `number`, read and augment our share; the same numbers give the same samples in any process."""
        rng = np.random.default_rng((seed, number))
        cases = [self.cases[case_id] for case_id in batch_ids(rng, self.ids, self.sampling)]
        places = [self._place(rng, i, case) for i, case in enumerate(cases)]
        wanted = self.share.of(len(cases))
        patches = self._patches([cases[i] for i in wanted], [places[i] for i in wanted])
        image, labels = (tensor.to(self.device) for tensor in patches)
        drawn = self.augmentation.draw_for(rng, len(cases), image.shape[1], wanted)
        image, target = self.augmentation.apply(image, labels, drawn)
        return Batch(image[:, :, 0], target[:, :, 0]) if self.planes else Batch(image, target)

    def _place(self, rng: np.random.Generator, index: int, case: LoadedCase) -> Place:
        """Where sample `index` lies in its case."""
        corner = draw_corner(rng, self.sampling, index, case.shape, case.foreground)
        if isinstance(self.augmentation, ReferenceAugmentation) or self.augmentation.spatial is None:
            return corner, None
        return corner, draw_matrix(rng, self.augmentation.spatial)

    def _patches(self, cases: Sequence[LoadedCase], places: Sequence[Place]) -> tuple[torch.Tensor, torch.Tensor]:
        """Images (B, C, Z, Y, X) and label maps (B, L, Z, Y, X) of the samples."""
        patches = [self._plain(case, *place) for case, place in zip(cases, places, strict=True)]
        turned = [i for i, patch in enumerate(patches) if patch is None]
        together = self._turned_together()
        for start in range(0, len(turned), together):
            some = turned[start : start + together]
            corners, matrices = zip(*(places[i] for i in some), strict=True)
            in_plane = self.augmentation.spatial.in_plane
            found = warped_patches([cases[i] for i in some], self.sampling, corners, matrices, in_plane)
            for i, *patch in zip(some, *found, strict=True):
                patches[i] = patch
        images, labels = zip(*patches, strict=True)
        return torch.stack(images), torch.stack(labels)

    def _turned_together(self) -> int:
        """A graphics card is as fast with many patches as with one; a processor with one that stays in its cache."""
        lie_on = self.cases.device
        if lie_on is None or lie_on.type != "cuda":
            return 1
        return max(1, VOXELS_TURNED_TOGETHER // math.prod(self.sampling.patch_size))

    def _plain(self, case: LoadedCase, corner: Shape, matrix: np.ndarray | None):
        """Image (C, Z, Y, X) and label maps (L, Z, Y, X) of a sample that is not turned; None of one that is."""
        if isinstance(self.augmentation, ReferenceAugmentation):
            return _window(case, corner, self.sampling.extraction_size)
        if matrix is not None:
            return None
        return _window(case, self.sampling.patch_corner(corner), self.sampling.patch_size)


def damage_sentence(error: Exception) -> str:
    """What to tell when reading a case failed."""
    return f"A batch could not be prepared ({error}); preprocess the task again."


def _window(case: LoadedCase, corner, size) -> tuple[torch.Tensor, torch.Tensor]:
    labels = [cut(labels, corner, size, OUTSIDE) for labels in case.labels]
    return cut(case.image, corner, size, 0.0), torch.stack(labels)
