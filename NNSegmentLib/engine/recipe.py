"""How one batch is made: choose cases and places, read the patches, augment them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from .augmentation import Augmentation
from .cases import OUTSIDE, Cases, LoadedCase, cut
from .reference_augmentation import ReferenceAugmentation
from .sampling import PatchSampling, batch_ids, draw_corner
from .spatial import draw_matrix, warped_patch

DAMAGE = (OSError, ValueError, TypeError, LookupError, EOFError)
"""What reading a damaged case raises."""


@dataclass(frozen=True)
class Batch:
    """Patches on the network's device."""

    image: torch.Tensor
    """(B, C, [Z,] Y, X) float32; in a cascade the channels of the previous stage's labels come last."""
    target: torch.Tensor
    """(B, 1, [Z,] Y, X) int16 label values, the ignore value included; 0 beyond the case."""


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

    def make(self, seed: int, number: int) -> Batch:
        """Draw, read and augment batch `number`; the same numbers give the same batch in any process."""
        rng = np.random.default_rng((seed, number))
        chosen = batch_ids(rng, self.ids, self.sampling)
        patches = [self._patch(rng, i, self.cases[case_id]) for i, case_id in enumerate(chosen)]
        image = torch.stack([image for image, _ in patches]).to(self.device)
        labels = torch.stack([labels for _, labels in patches]).to(self.device)
        image, target = self.augmentation.apply(image, labels, self.augmentation.draw(rng, *image.shape[:2]))
        return Batch(image[:, :, 0], target[:, :, 0]) if self.planes else Batch(image, target)

    def _patch(self, rng: np.random.Generator, index: int, case: LoadedCase) -> tuple[torch.Tensor, torch.Tensor]:
        """Image (C, Z, Y, X) and label maps (L, Z, Y, X) of sample `index`."""
        corner = draw_corner(rng, self.sampling, index, case.shape, case.foreground)
        if isinstance(self.augmentation, ReferenceAugmentation):
            return _window(case, corner, self.sampling.extraction_size)
        rules = self.augmentation.spatial
        matrix = draw_matrix(rng, rules) if rules else None
        if matrix is None:
            return _window(case, self.sampling.patch_corner(corner), self.sampling.patch_size)
        return warped_patch(case, self.sampling, corner, matrix, rules.in_plane)


def damage_sentence(error: Exception) -> str:
    """What to tell when reading a case failed."""
    return f"A batch could not be prepared ({error}); preprocess the task again."


def _window(case: LoadedCase, corner, size) -> tuple[torch.Tensor, torch.Tensor]:
    labels = [cut(labels, corner, size, OUTSIDE) for labels in case.labels]
    return cut(case.image, corner, size, 0.0), torch.stack(labels)
