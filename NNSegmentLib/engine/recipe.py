"""How one batch is made: choose cases and places, read the patches, augment them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ..geometry import Shape
from ..preprocessing.prepared import OUTSIDE
from .augmentation import Augmentation
from .cases import Cases, LoadedCase, cut
from .reference_augmentation import ReferenceAugmentation
from .sampling import PatchSampling, Share, batch_ids, draw_corner
from .spatial import draw_matrix, warped_patch

DAMAGE = (OSError, ValueError, TypeError, LookupError, EOFError)
"""What reading a damaged case raises."""


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
        patches = [self._patch(cases[i], *places[i]) for i in wanted]
        image = torch.stack([image for image, _ in patches]).to(self.device)
        labels = torch.stack([labels for _, labels in patches]).to(self.device)
        drawn = self.augmentation.draw_for(rng, len(cases), image.shape[1], wanted)
        image, target = self.augmentation.apply(image, labels, drawn)
        return Batch(image[:, :, 0], target[:, :, 0]) if self.planes else Batch(image, target)

    def _place(self, rng: np.random.Generator, index: int, case: LoadedCase) -> tuple[Shape, np.ndarray | None]:
        """Corner of the extraction window of sample `index`, and how the patch in it is turned and scaled."""
        corner = draw_corner(rng, self.sampling, index, case.shape, case.foreground)
        if isinstance(self.augmentation, ReferenceAugmentation) or self.augmentation.spatial is None:
            return corner, None
        return corner, draw_matrix(rng, self.augmentation.spatial)

    def _patch(self, case: LoadedCase, corner: Shape, matrix: np.ndarray | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Image (C, Z, Y, X) and label maps (L, Z, Y, X) of a sample."""
        if isinstance(self.augmentation, ReferenceAugmentation):
            return _window(case, corner, self.sampling.extraction_size)
        if matrix is None:
            return _window(case, self.sampling.patch_corner(corner), self.sampling.patch_size)
        return warped_patch(case, self.sampling, corner, matrix, self.augmentation.spatial.in_plane)


def damage_sentence(error: Exception) -> str:
    """What to tell when reading a case failed."""
    return f"A batch could not be prepared ({error}); preprocess the task again."


def _window(case: LoadedCase, corner, size) -> tuple[torch.Tensor, torch.Tensor]:
    labels = [cut(labels, corner, size, OUTSIDE) for labels in case.labels]
    return cut(case.image, corner, size, 0.0), torch.stack(labels)
