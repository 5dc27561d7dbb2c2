"""Batches from several processes, by batchgenerators' loader."""

from __future__ import annotations

import numpy as np
import torch

from ..errors import NNSegmentError, RunError
from .recipe import Batch, BatchRecipe


class LoaderProcesses:
    """Makes batches in `workers` processes, in no fixed order; a call returns the next one.

    Raises RunError with the worker's own sentence, or when a worker has died.
    """

    def __init__(self, recipe: BatchRecipe, workers: int, seed: int | None) -> None:
        from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter

        ahead = max(6, workers // 2)
        self._loader = NonDetMultiThreadedAugmenter(_Worker(recipe, seed), None, workers, ahead, wait_time=0.002)

    def __call__(self) -> Batch:
        try:
            item = next(self._loader)
        except RuntimeError as error:
            raise RunError(
                "A process that prepares batches has ended unexpectedly, perhaps for lack of memory; "
                "continue the training with fewer loader_workers."
            ) from error
        if "error" in item:
            raise RunError(item["error"])
        return Batch(torch.from_numpy(item["image"]), torch.from_numpy(item["target"]))

    def close(self) -> None:
        """End the processes."""
        self._loader._finish()


class _Worker:
    """What batchgenerators runs in each process: an endless iterator of dictionaries of numpy arrays."""

    def __init__(self, recipe: BatchRecipe, seed: int | None) -> None:
        self.recipe, self.seed = recipe, seed

    def set_thread_id(self, number: int) -> None:
        self.rng = np.random.default_rng(None if self.seed is None else (self.seed, number))

    def __next__(self) -> dict:
        try:
            batch = self.recipe.make(self.rng)
        except (NNSegmentError, OSError, ValueError, TypeError, LookupError, EOFError, MemoryError) as error:
            return {"error": f"A batch could not be prepared ({error}); preprocess the task again."}
        return {"image": batch.image.numpy(), "target": np.ascontiguousarray(batch.target.numpy())}
