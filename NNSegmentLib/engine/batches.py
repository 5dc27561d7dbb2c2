"""Batches of patches for training and for the quick validation, prepared in the background."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..errors import NNSegmentError, RunError
from ..labels import LabelSet
from ..planning.plan import Configuration
from ..run import TrainingSettings
from .cases import OUTSIDE, Cases, LoadedCase, cut
from .sampling import PatchSampling, batch_ids, draw_corner

if TYPE_CHECKING:
    from ..preprocessing.storage import PreparedStore

_AHEAD = 3
"""Batches prepared ahead of the network."""


@dataclass(frozen=True)
class Batch:
    """Patches on the network's device."""

    image: torch.Tensor
    """(B, C, [Z,] Y, X) float32."""
    target: torch.Tensor
    """(B, 1, [Z,] Y, X) int16 label values, the ignore value included; 0 beyond the case."""


@dataclass(frozen=True)
class BatchRecipe:
    """All that is needed to make one batch from a random generator; goes to loader processes as it is."""

    cases: Cases
    ids: tuple[str, ...]
    sampling: PatchSampling
    planes: bool
    """Whether patches are slices (2d)."""

    def make(self, rng: np.random.Generator) -> Batch:
        """Draw and cut one batch."""
        chosen = batch_ids(rng, self.ids, self.sampling)
        patches = [self._patch(rng, i, self.cases[case_id]) for i, case_id in enumerate(chosen)]
        image = torch.stack([image for image, _ in patches])
        target = torch.stack([labels for _, labels in patches]).clamp_(min=0)
        return Batch(image[:, :, 0], target[:, :, 0]) if self.planes else Batch(image, target)

    def _patch(self, rng: np.random.Generator, index: int, case: LoadedCase) -> tuple[torch.Tensor, torch.Tensor]:
        corner = draw_corner(rng, self.sampling, index, case.shape, case.foreground)
        corner, size = self.sampling.patch_corner(corner), self.sampling.patch_size
        labels = [cut(labels, corner, size, OUTSIDE).to(torch.int16) for labels in case.labels]
        return cut(case.image, corner, size, 0.0), torch.stack(labels)


class BatchSource:
    """An endless iterator of batches; the next ones are prepared in the background.

    `batch_size` patches of the cases `ids` a batch. `training` draws them with augmentation, otherwise plain patches are
    cut by the same rules. The same `seed` gives the same batches while they are prepared in a thread.
    `previous_stage` holds the previous stage's label maps CASE.npy (Z, Y, X), which become one channel per label.
    Raises RunError from `next()` when a batch cannot be prepared.
    """

    def __init__(
        self,
        store: PreparedStore,
        ids: Sequence[str],
        configuration: Configuration,
        label_set: LabelSet,
        *,
        settings: TrainingSettings,
        training: bool,
        batch_size: int,
        seed: int | None = None,
        previous_stage: Path | None = None,
        device: torch.device,
    ) -> None:
        if not ids:
            raise RunError("Batches need at least one case, found none; check the split of the task.")
        self.device = device
        patch = (1, *configuration.patch_size) if configuration.is_2d else configuration.patch_size
        sampling = PatchSampling(
            patch, patch, batch_size, settings.foreground_fraction, label_set.ignore_value is not None
        )
        cases = Cases(store, previous_stage, torch.device("cpu"), resident=True)
        self.recipe = BatchRecipe(cases, tuple(ids), sampling, configuration.is_2d)
        self._rng = np.random.default_rng(seed)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._waiting: deque[Future[Batch]] = deque()

    def __iter__(self) -> BatchSource:
        return self

    def __next__(self) -> Batch:
        while len(self._waiting) < _AHEAD:
            self._waiting.append(self._pool.submit(self._prepare))
        try:
            return self._waiting.popleft().result()
        except NNSegmentError:
            raise
        except (OSError, ValueError, TypeError, LookupError) as error:
            raise RunError(f"A batch could not be prepared ({error}); preprocess the task again.") from error

    def close(self) -> None:
        """Stop preparing batches."""
        self._waiting.clear()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _prepare(self) -> Batch:
        batch = self.recipe.make(self._rng)
        return Batch(batch.image.to(self.device), batch.target.to(self.device))
