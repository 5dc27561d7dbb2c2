"""Prepared cases as the loader reads them: windows cut from memory maps, from memory or from the device."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from ..errors import RunError
from ..labels import Region
from ..preprocessing.prepared import PreparedCase
from ..preprocessing.storage import PreparedStore, load_previous_stage

_MEASURED_CASES = 16
_OPEN_CASES = 256
"""Cases kept open at a time when they are read from disk: each holds two file handles."""


@dataclass(frozen=True)
class LoadedCase:
    """One case ready to be cut; arrays are numpy (memory-mapped) or tensors (resident)."""

    id: str
    image: np.ndarray | torch.Tensor
    """(C, Z, Y, X) float32."""
    labels: tuple[np.ndarray | torch.Tensor, ...]
    """The label map (Z, Y, X) and, in a cascade, that of the previous stage."""
    foreground: Mapping[Region, np.ndarray]

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels along (z, y, x)."""
        return tuple(self.image.shape[1:])


class Cases:
    """The cases of a store by id, opened on first use and kept.

    With a `device` each case is copied there when it is first used; without, only the windows asked for are read.
    """

    def __init__(self, store: PreparedStore, previous_stage: Path | None, device: torch.device | None) -> None:
        self.store, self.previous_stage, self.device = store, previous_stage, device
        self._open = lru_cache(maxsize=_OPEN_CASES if device is None else None)(self._load)
        self._one_at_a_time = threading.Lock()  # two batches that want the same new case must not both load it

    def __getitem__(self, case_id: str) -> LoadedCase:
        with self._one_at_a_time:
            return self._open(case_id)

    def forget(self) -> None:
        """Let go of all cases, which would else stay, on a GPU too, until Python looks for circles of objects."""
        with self._one_at_a_time:
            self._open.cache_clear()

    def __reduce__(self):
        return Cases, (self.store, self.previous_stage, self.device)

    def _load(self, case_id: str) -> LoadedCase:
        case = self.store.open(case_id)
        if case.labels is None:
            raise RunError(f"Case {case_id} has no prepared labels to train on; preprocess the task again.")
        labels = (case.labels,) if self.previous_stage is None else (case.labels, self._previous_labels(case))
        image = case.image
        if self.device is not None:
            image, labels = self._moved(image), tuple(map(self._moved, labels))
        return LoadedCase(case_id, image, labels, case.foreground)

    def _moved(self, array: np.ndarray) -> torch.Tensor:
        return _copied(array).to(self.device)

    def _previous_labels(self, case: PreparedCase) -> np.ndarray:
        """The previous stage's labels (Z, Y, X) on this stage's grid; raises TaskError or RunError."""
        labels = load_previous_stage(self.previous_stage, case.id)
        if labels.shape != case.image.shape[1:]:
            raise RunError(
                f"The previous stage's labels of case {case.id} should have shape {case.image.shape[1:]}, "
                f"found {labels.shape}; validate the previous stage again."
            )
        return labels


def stored_bytes(store: PreparedStore, ids: Sequence[str]) -> int:
    """Memory that all these cases would occupy, extrapolated from a few of them."""
    some = [store.open(case_id) for case_id in ids[:: -(-len(ids) // _MEASURED_CASES)]]
    sizes = [case.image.nbytes + (0 if case.labels is None else 2 * case.labels.size) for case in some]
    return int(np.mean(sizes) * len(ids))


def cut(array: np.ndarray | torch.Tensor, corner: Sequence[int], size: Sequence[int], outside: float) -> torch.Tensor:
    """A window of the last three axes from `corner` (z, y, x), filled with `outside` beyond the array.

    The result is always a copy, float32 or int16; from a memory map only the window is read.
    """
    low = [max(c, 0) for c in corner]
    high = [min(c + n, full) for c, n, full in zip(corner, size, array.shape[-3:], strict=True)]
    inside = array[(..., *map(slice, low, high))] if all(b > a for a, b in zip(low, high, strict=True)) else None
    if inside is not None and tuple(inside.shape[-3:]) == tuple(size):
        return _copied(inside)
    window = empty_like(array, size).fill_(outside)
    if inside is not None:
        places = [slice(a - c, b - c) for a, b, c in zip(low, high, corner, strict=True)]
        window[(..., *places)] = inside if isinstance(inside, torch.Tensor) else _copied(inside)
    return window


def _copied(array: np.ndarray | torch.Tensor) -> torch.Tensor:
    return array.clone() if isinstance(array, torch.Tensor) else torch.from_numpy(np.array(array, _kind(array)))


def empty_like(array: np.ndarray | torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """A tensor like an array whose last three axes have `size`, with any values."""
    shape = (*array.shape[:-3], *size)
    return (
        array.new_empty(shape) if isinstance(array, torch.Tensor) else torch.from_numpy(np.empty(shape, _kind(array)))
    )


def _kind(array: np.ndarray) -> type:
    return np.float32 if array.dtype.kind == "f" else np.int16
