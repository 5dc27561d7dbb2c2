"""Batches of patches for training and for the quick validation, prepared in the background.

Who prepares them depends on the device. On the CPU one thread does, with a single thread of arithmetic: it costs a few
per cent of a training step and shares the cases with the trainer. On a CUDA GPU such threads drive the GPU, where the
whole data set lies if it fits; if it does not, processes read and augment on the CPU. Apple's graphics are left to the
trainer's thread: torch ends the whole process when two threads use them at once (pytorch issue 197805).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from ..errors import NNSegmentError, OutOfMemoryError, RunError
from ..labels import LabelSet
from ..planning.plan import Configuration
from ..preflight import THREADS_THAT_TURN, stay_in_memory, stay_on_gpu, training_gpu_gb, turning_gb
from ..preprocessing.storage import PreparedStore
from ..run import TrainingSettings
from .augmentation import Augmentation, training_augmentation, validation_augmentation
from .cases import Cases, stored_bytes
from .devices import cores, gpu_memory_gb
from .loader_processes import LoaderProcesses
from .recipe import DAMAGE, Batch, BatchRecipe, damage_sentence
from .recording import TURNS
from .reference_augmentation import ReferenceAugmentation
from .sampling import PatchSampling, Share
from .spatial import extraction_size

T = TypeVar("T")
__all__ = ["Batch", "BatchSource", "Loading", "choose_loading"]

_AHEAD = 4
"""Batches prepared ahead of the network."""
_MOST_WORKERS = 12
WHOLE = Share()
"""All of a batch: the usual case of a single training process."""


@dataclass(frozen=True)
class Loading:
    """Who prepares batches, and where the cases lie."""

    workers: int
    """Processes; 0 is a thread of this process."""
    cases_on: torch.device | None
    """None reads windows from disk."""
    augment_on: torch.device


class BatchSource:
    """An endless iterator of batches; the next ones are prepared in the background.

    `batch_size` patches of the cases `ids` a batch. `training` draws them with augmentation, otherwise plain patches are
    cut by the same rules. The same `seed` gives the same batches, in a thread or in processes; they begin with number
    `first`, so that a resumed run goes on with those it would have had.
    Of several processes that train together, each makes its `share` of every batch.
    `previous_stage` holds the previous stage's label maps CASE.npy (Z, Y, X), which become one channel per label.
    A source `beside` another one of the same store reads where that one does, so that cases of both lie there once.
    `next()` raises RunError when a batch cannot be prepared.
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
        first: int = 0,
        share: Share = WHOLE,
        previous_stage: Path | None = None,
        device: torch.device,
        beside: BatchSource | None = None,
    ) -> None:
        if not ids:
            raise RunError("Batches need at least one case, found none; check the split of the task.")
        self.device = torch.device(device)
        values = label_set.foreground_values if previous_stage else ()
        self._has_own_cases = beside is None
        if beside is None:
            n_inputs, n_samples = len(configuration.normalization) + len(values), len(share.of(batch_size))
            network_gb = training_gpu_gb(configuration, settings, n_inputs, label_set.n_outputs, n_samples)
            network_gb += turning_gb(configuration.patch_size, n_samples)
            case_bytes = _told(lambda: stored_bytes(store, ids))
            self.loading = choose_loading(settings, self.device, case_bytes, network_gb, share.ranks)
            self.cases = Cases(store, previous_stage, self.loading.cases_on)
        else:
            self.loading, self.cases = beside.loading, beside.cases
        plain = not training or settings.augmentation == "none"
        recipe = BatchRecipe(
            self.cases,
            tuple(ids),
            patch_sampling(configuration, label_set, batch_size, settings.foreground_fraction, plain),
            _augmentation(configuration, settings, values, plain),
            configuration.is_2d,
            self.loading.augment_on,
            share,
        )
        self._start(recipe, np.random.SeedSequence(seed).entropy, first)

    def _start(self, recipe: BatchRecipe, seed: int, first: int) -> None:
        """Begin to make batches, from number `first` on."""
        workers = self.loading.workers
        self._make = LoaderProcesses(recipe, workers, seed, first) if workers else partial(recipe.make, seed)
        self._cuda = self.device.type == "cuda"
        self._own = threading.local()
        # a thread takes nearly as long to start the operations of a batch as a fast GPU takes for a step; processes
        # answer in the order they are asked, which one thread keeps
        threads = THREADS_THAT_TURN if self._cuda and not workers else 1
        self._pool = ThreadPoolExecutor(threads, "batches", initializer=self._begin)
        self._waiting: deque[Future[Batch]] = deque()
        self._numbers = count(first)
        self._prepare_ahead()

    def __iter__(self) -> BatchSource:
        return self

    def __next__(self) -> Batch:
        batch = self._waiting.popleft().result()
        self._prepare_ahead()
        if not self._cuda:
            return batch.moved(self.device)
        for tensor in (batch.image, batch.target):
            # keeps the memory from being used for the next batch while the network still reads this one
            tensor.record_stream(torch.cuda.current_stream(self.device))
        return batch

    def close(self) -> None:
        """Stop preparing batches and let go of the cases; may be called twice."""
        self._waiting.clear()
        self._pool.shutdown(wait=True, cancel_futures=True)
        if self._has_own_cases:  # others of a source beside this one may still be read
            self.cases.forget()
        if isinstance(self._make, LoaderProcesses):
            self._make.close()

    def _prepare_ahead(self) -> None:
        while len(self._waiting) < _AHEAD:
            self._waiting.append(self._pool.submit(self._prepare, next(self._numbers)))

    def _begin(self) -> None:
        """Set up a thread: its arithmetic must not spread over the cores that the network computes on."""
        torch.set_num_threads(1)
        self._own.stream = torch.cuda.Stream(self.device) if self._cuda else None

    def _prepare(self, number: int) -> Batch:
        stream = self._own.stream
        if stream is None:
            return _told(lambda: self._make(number))
        with TURNS.together(), torch.cuda.stream(stream):
            batch = _told(lambda: self._make(number)).moved(self.device)
            stream.synchronize()
        return batch


def _augmentation(
    configuration: Configuration, settings: TrainingSettings, previous_values: Sequence[int], plain: bool
) -> Augmentation | ReferenceAugmentation:
    if plain:
        return validation_augmentation(configuration, previous_values)
    rules = training_augmentation(configuration, settings, previous_values)
    return ReferenceAugmentation(rules) if settings.augmentation == "batchgenerators" else rules


def patch_sampling(
    configuration: Configuration, label_set: LabelSet, batch_size: int, foreground_fraction: float, plain: bool
) -> PatchSampling:
    """How patches are chosen; `plain` ones need no room for rotation and scaling."""
    slices = (1,) if configuration.is_2d else ()
    patch = configuration.patch_size
    return PatchSampling(
        slices + tuple(patch),
        slices + tuple(patch if plain else extraction_size(patch)),
        batch_size,
        foreground_fraction,
        label_set.ignore_value is not None,
    )


def choose_loading(
    settings: TrainingSettings, device: torch.device, case_bytes: int, network_gb: float = 0.0, trainers: int = 1
) -> Loading:
    """Who prepares batches of a data set of `case_bytes`; `settings.loader_workers` decides unless it is −1.

    A GPU also holds the network, which needs `network_gb` there. The machine's memory and cores are shared by `trainers`
    processes that train together, each on a GPU of its own.
    """
    cpu = torch.device("cpu")
    reference = settings.augmentation == "batchgenerators"
    cuda = device.type == "cuda" and settings.loader_workers <= 0 and not reference
    if cuda and stay_on_gpu(case_bytes / 1e9, network_gb, gpu_memory_gb(device)[1]):
        return Loading(0, device, device)
    workers = settings.loader_workers
    if workers < 0:
        workers = min(_MOST_WORKERS, max(1, cores() // trainers - 1)) if device.type == "cuda" else 0
    # processes share the pages of the files; a copy in each would multiply the data set
    fits = workers == 0 and stay_in_memory(case_bytes / 1e9 * trainers)
    return Loading(workers, cpu if fits else None, device if cuda and workers == 0 else cpu)


def _told(work: Callable[[], T]) -> T:
    """The result of reading cases, or one sentence why there is none."""
    try:
        return work()
    except NNSegmentError:
        raise
    except MemoryError as error:
        raise OutOfMemoryError("A batch needs more memory than is free; use a smaller batch size.") from error
    except DAMAGE as error:
        raise RunError(damage_sentence(error)) from error
