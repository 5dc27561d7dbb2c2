"""Sliding-window prediction: overlapping tiles, Gaussian weights, mirroring, folds averaged (nnU-Net's rule)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from ..errors import OutOfMemoryError, RunError
from ..preflight import tiles_together
from ..progress import Progress, silent
from .devices import autocast, memory_errors, release_memory

Tile = tuple[int | slice, slice, slice]
"""Where a tile lies in (Z, Y, X); an int along z for networks that see single planes."""
WEIGHT_MAX = 10.0
"""Weight of a tile's centre; nnU-Net scales the Gaussian so that its half-precision values keep their digits."""
GAUSSIAN_SIGMA = 1 / 8
"""Width of the Gaussian weight as a part of the patch."""

_ADVICE = "close other programs, use device cpu, or predict with a configuration of larger voxels"


def predict_logits(
    networks: torch.nn.Module | Sequence[torch.nn.Module],
    image: torch.Tensor,
    patch_size: Sequence[int],
    *,
    mirror_axes: Sequence[int] = (),
    step: float = 0.5,
    device: torch.device | str = "cpu",
    tiles_at_once: int | None = None,
    mixed_precision: bool = True,
    activation: Callable[[torch.Tensor], torch.Tensor] | None = None,
    progress: Progress = silent,
    message: Callable[[str], None] = lambda text: None,
) -> torch.Tensor:
    """Logits (n_outputs, Z, Y, X) on the CPU for a prepared image (C, Z, Y, X), averaged over the networks.

    They are float16, and float32 only where half precision would overflow.
    `patch_size` has three entries, or two for networks that see planes (y, x); `mirror_axes` count its axes.
    `networks` are used one after the other, so that a sequence may load each when it is asked for.
    `mixed_precision` is half precision on CUDA only. With an `activation` its values are averaged instead of logits,
    in float32: probabilities, as in nnU-Net v1. `message` hears what a person should know.
    Where memory does not suffice fewer tiles are looked at together, then the result is collected in main memory.
    Raises OutOfMemoryError when even a single tile does not fit, RunError when the network gives no numbers.
    """
    networks = [networks] if isinstance(networks, torch.nn.Module) else networks
    device = torch.device(device)
    half = device.type == "cuda" and mixed_precision
    window = _Window(tuple(patch_size), tuple(mirror_axes), device, half, activation)
    padded, inside = _padded(image, patch_size)
    tiles = tile_positions(padded.shape[1:], patch_size, step)
    at_once = _AtOnce(tiles_at_once or tiles_together(patch_size, device.type))
    work = _Work(networks, padded, tiles, at_once, window, progress, message)
    return _without_exhausting_memory(work)[(slice(None), *inside)]


@dataclass(frozen=True)
class _Window:
    """How one tile is looked at."""

    patch_size: tuple[int, ...]
    mirror_axes: tuple[int, ...]
    device: torch.device
    half: bool
    activation: Callable[[torch.Tensor], torch.Tensor] | None = None

    @property
    def sums(self) -> torch.dtype:
        """The precision of sums over tiles: nnU-Net's half precision for logits."""
        return torch.float16 if self.activation is None else torch.float32

    @property
    def flips(self) -> tuple[tuple[int, ...], ...]:
        """Non-empty subsets of the mirror axes, as axes of a batch (B, C, *patch)."""
        axes = [axis + 2 for axis in self.mirror_axes]
        return tuple(c for n in range(1, len(axes) + 1) for c in itertools.combinations(axes, n))

    def look(self, network: torch.nn.Module, batch: torch.Tensor) -> torch.Tensor:
        """Outputs (B, n_outputs, *patch) float32 of a batch (B, C, *patch), averaged over mirrored views."""
        with autocast(self.device, torch.float16 if self.half else None):
            total = self._outputs(network, batch)
            for axes in self.flips:
                total += self._outputs(network, batch.flip(axes)).flip(axes)
        return total.div_(len(self.flips) + 1)

    def _outputs(self, network: torch.nn.Module, batch: torch.Tensor) -> torch.Tensor:
        logits = network(batch).float()
        return logits if self.activation is None else self.activation(logits)


@dataclass
class _AtOnce:
    """How many tiles go through the network together, now."""

    n: int


@dataclass(frozen=True)
class _Work:
    """One volume to predict."""

    networks: Sequence[torch.nn.Module]
    image: torch.Tensor
    """(C, Z, Y, X), padded."""
    tiles: list[Tile]
    at_once: _AtOnce
    window: _Window
    progress: Progress
    message: Callable[[str], None]


def tile_starts(size: int, patch: int, step: float) -> list[int]:
    """First voxel of each tile along one axis: evenly spread, at most `step` of a patch apart, the last one flush."""
    n = int(np.ceil((size - patch) / (patch * step))) + 1
    return [0] if n == 1 else [int(np.round(i * (size - patch) / (n - 1))) for i in range(n)]


def tile_positions(shape: Sequence[int], patch_size: Sequence[int], step: float) -> list[Tile]:
    """All tiles of a volume (Z, Y, X) at least as large as the patch; a patch of two axes goes through every plane."""
    planes = [range(shape[0])] if len(patch_size) == 2 else []
    axes = [
        [slice(start, start + patch) for start in tile_starts(size, patch, step)]
        for size, patch in zip(shape[-len(patch_size) :], patch_size, strict=True)
    ]
    return list(itertools.product(*planes, *axes))


@lru_cache(maxsize=8)
def importance_map(patch_size: tuple[int, ...], precision: torch.dtype = torch.float16) -> torch.Tensor:
    """Weight of each voxel of a tile, float32 (*patch): a Gaussian of one eighth of the patch, centre weight 10.

    Rounded to half precision, as nnU-Net stores it (version 1 did not), without zeros.
    """
    weights = np.ones(())
    for size in patch_size:
        distance = (np.arange(size) - size // 2) / (size * GAUSSIAN_SIGMA)
        weights = np.multiply.outer(weights, np.exp(-0.5 * distance**2))
    rounded = torch.from_numpy(weights * WEIGHT_MAX).to(precision)
    rounded[rounded == 0] = rounded[rounded > 0].min()
    return rounded.float()


def _padded(image: torch.Tensor, patch_size: Sequence[int]) -> tuple[torch.Tensor, tuple[slice, ...]]:
    """The image with zeros around it where it is smaller than the patch, and where the image lies inside."""
    shape = image.shape[1:]
    wanted = (*shape[: 3 - len(patch_size)], *patch_size)
    missing = [max(0, want - have) for have, want in zip(shape, wanted, strict=True)]
    below = [m // 2 for m in missing]
    inside = tuple(slice(b, b + n) for b, n in zip(below, shape, strict=True))
    if not any(missing):
        return image, inside
    edges = [(b, m - b) for b, m in zip(below, missing, strict=True)]
    return torch.nn.functional.pad(image, [n for edge in reversed(edges) for n in edge]), inside


def _without_exhausting_memory(work: _Work) -> torch.Tensor:
    """Logits on the CPU, collected on the network's device when they fit there."""
    device = work.window.device
    try:
        with memory_errors(_ADVICE):
            return _without_overflow(work, device)
    except OutOfMemoryError:
        if device.type == "cpu":
            raise
    work.message("The result does not fit into the graphics memory; it is collected in main memory, which is slower.")
    release_memory(device)
    with memory_errors(_ADVICE):
        return _without_overflow(work, torch.device("cpu"))


def _without_overflow(work: _Work, collect_on: torch.device) -> torch.Tensor:
    """nnU-Net's half-precision sums; sums above 65504 are collected again in single precision."""
    logits = _average(work, collect_on, work.window.sums)
    if not _are_numbers(logits):
        work.message("The network's values exceed half precision; the image is predicted again in single precision.")
        logits = _average(work, collect_on, torch.float32)
    if not _are_numbers(logits):
        raise RunError(
            "The network gave values that are no numbers; check the image for extreme intensities, or predict with "
            "device cpu, which computes in full precision."
        )
    return logits.cpu()


@torch.inference_mode()
def _average(work: _Work, collect_on: torch.device, kind: torch.dtype) -> torch.Tensor:
    """Weighted mean of all tiles, then of all networks: logits (n_outputs, Z, Y, X).

    Half precision halves the memory and, rounding where nnU-Net rounds, gives its labels even in the corners of the
    volume, where the weights are smaller than half precision resolves.
    """
    weights = importance_map(work.window.patch_size, work.window.sums).to(collect_on)
    image = work.image.to(collect_on)
    summed_weights = _sum_of_weights(work, weights, kind)
    steps, done = len(work.networks) * len(work.tiles), 0
    work.progress(done, steps, "tiles")
    mean = None
    for network in work.networks:
        total = None
        for tiles, outputs in _answers(work, network, image, weights):
            if total is None:
                total = torch.zeros((outputs.shape[1], *image.shape[1:]), dtype=kind, device=collect_on)
            for tile, output in zip(tiles, outputs, strict=True):
                total[(slice(None), *tile)] += output
            done += len(tiles)
            work.progress(done, steps, "tiles")
        total /= summed_weights
        mean = total if mean is None else mean.add_(total)
    return mean.div_(len(work.networks)) if len(work.networks) > 1 else mean


def _answers(
    work: _Work, network: torch.nn.Module, image: torch.Tensor, weights: torch.Tensor
) -> Iterator[tuple[list[Tile], torch.Tensor]]:
    """All tiles, some at a time, with their weighted outputs (B, n_outputs, *patch) where the weights are.

    1, 2, 4, 8, … at a time: cuDNN tunes its convolutions anew for every number of tiles that it has not seen.
    """
    left = work.tiles
    while left:
        most = min(work.at_once.n, len(left))
        tiles = left[: 1 << (most.bit_length() - 1)]
        outputs = _answer(work, network, image, weights, tiles)
        if outputs is None:
            _take_fewer(work, len(tiles))
        else:
            yield tiles, outputs
            left = left[len(tiles) :]


def _answer(work: _Work, network, image: torch.Tensor, weights: torch.Tensor, tiles: list[Tile]) -> torch.Tensor | None:
    """Weighted outputs of some tiles; None when there is no memory for so many."""
    try:
        with memory_errors(_ADVICE):
            batch = torch.stack([image[(slice(None), *tile)] for tile in tiles]).to(work.window.device)
            return work.window.look(network, batch).to(weights.device).mul_(weights)
    except OutOfMemoryError:
        if len(tiles) == 1:
            raise
    return None


def _take_fewer(work: _Work, tried: int) -> None:
    work.at_once.n = tried // 2
    work.message(f"Memory does not suffice for {tried} tiles at once; going on with {work.at_once.n}, which is slower.")
    release_memory(work.window.device)


def _sum_of_weights(work: _Work, weights: torch.Tensor, kind: torch.dtype) -> torch.Tensor:
    summed = torch.zeros(work.image.shape[1:], dtype=kind, device=weights.device)
    for tile in work.tiles:
        summed[tile] += weights
    return summed


def _are_numbers(logits: torch.Tensor) -> bool:
    return all(bool(torch.isfinite(channel).all()) for channel in logits)
