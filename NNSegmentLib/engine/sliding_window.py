"""Sliding-window prediction: overlapping tiles, Gaussian weights, mirroring, folds averaged (nnU-Net's rule)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from ..errors import OutOfMemoryError, RunError
from ..progress import Progress, silent

Tile = tuple[int | slice, slice, slice]
"""Where a tile lies in (Z, Y, X); an int along z for networks that see single planes."""
WEIGHT_MAX = 10.0
"""Weight of a tile's centre; nnU-Net scales the Gaussian so that its half-precision values keep their digits."""
_CPU_VOXELS, _CUDA_VOXELS = 50_000, 4_000_000
"""Voxels worth one forward pass: smaller tiles are joined into a batch until they reach this."""


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
    progress: Progress = silent,
    message: Callable[[str], None] = lambda text: None,
) -> torch.Tensor:
    """Logits (n_outputs, Z, Y, X) float32 on the CPU for a prepared image (C, Z, Y, X), averaged over the networks.

    `patch_size` has three entries, or two for networks that see planes (y, x); `mirror_axes` count its axes.
    `networks` are used one after the other, so that a sequence may load each when it is asked for.
    `mixed_precision` is half precision on CUDA only. `message` hears what a person should know.
    Raises OutOfMemoryError when even a single tile does not fit, RunError when the network gives no numbers.
    """
    networks = [networks] if isinstance(networks, torch.nn.Module) else networks
    device = torch.device(device)
    window = _Window(tuple(patch_size), tuple(mirror_axes), device, device.type == "cuda" and mixed_precision)
    padded, inside = _padded(image, patch_size)
    tiles = tile_positions(padded.shape[1:], patch_size, step)
    batches = list(_in_batches(tiles, tiles_at_once or _tiles_at_once(patch_size, device)))
    work = (networks, padded, batches, window, progress)
    try:
        logits = _average(*work, accumulate_on=device)
    except RuntimeError as error:
        if device.type == "cpu" or not _is_out_of_memory(error):
            raise _explained(error) from error
        message("The result does not fit into the graphics memory; it is collected in main memory, which is slower.")
        _forget_cached_memory(device)
        logits = _average_on_cpu(work)
    return logits[(slice(None), *inside)]


@dataclass(frozen=True)
class _Window:
    """How one tile is looked at."""

    patch_size: tuple[int, ...]
    mirror_axes: tuple[int, ...]
    device: torch.device
    half: bool

    @property
    def flips(self) -> tuple[tuple[int, ...], ...]:
        """Non-empty subsets of the mirror axes, as axes of a batch (B, C, *patch)."""
        axes = [axis + 2 for axis in self.mirror_axes]
        return tuple(c for n in range(1, len(axes) + 1) for c in itertools.combinations(axes, n))

    def look(self, network: torch.nn.Module, batch: torch.Tensor) -> torch.Tensor:
        """Logits (B, n_outputs, *patch) float32 of a batch (B, C, *patch), averaged over mirrored views."""
        with torch.autocast(self.device.type, dtype=torch.float16, enabled=self.half):
            total = network(batch).float()
            for axes in self.flips:
                total += network(batch.flip(axes)).flip(axes)
        return total.div_(len(self.flips) + 1)


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
def importance_map(patch_size: tuple[int, ...]) -> torch.Tensor:
    """Weight of each voxel of a tile, float32 (*patch): a Gaussian of one eighth of the patch, centre weight 10.

    Rounded to half precision, as nnU-Net stores it, without zeros.
    """
    weights = np.ones(())
    for size in patch_size:
        distance = (np.arange(size) - size // 2) / (size / 8)
        weights = np.multiply.outer(weights, np.exp(-0.5 * distance**2))
    half = torch.from_numpy(weights * WEIGHT_MAX).half()
    half[half == 0] = half[half > 0].min()
    return half.float()


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


def _tiles_at_once(patch_size: Sequence[int], device: torch.device) -> int:
    worth = _CUDA_VOXELS if device.type == "cuda" else _CPU_VOXELS
    return max(1, worth // int(np.prod(patch_size)))


def _in_batches(tiles: list[Tile], n: int) -> Iterator[list[Tile]]:
    return (tiles[start : start + n] for start in range(0, len(tiles), n))


@torch.inference_mode()
def _average(
    networks: Sequence[torch.nn.Module],
    image: torch.Tensor,
    batches: list[list[Tile]],
    window: _Window,
    progress: Progress,
    accumulate_on: torch.device,
) -> torch.Tensor:
    """Weighted mean of all tiles and networks, float32: half-precision sums would overflow above 65504."""
    weights = importance_map(window.patch_size).to(accumulate_on)
    image = image.to(accumulate_on)
    total_steps, done, total = len(networks) * len(batches), 0, None
    progress(0, total_steps, "tiles")
    for network in networks:
        for tiles in batches:
            batch = torch.stack([image[(slice(None), *tile)] for tile in tiles]).to(window.device)
            outputs = window.look(network, batch).to(accumulate_on).mul_(weights)
            total = outputs.new_zeros((outputs.shape[1], *image.shape[1:])) if total is None else total
            for tile, output in zip(tiles, outputs, strict=True):
                total[(slice(None), *tile)] += output
            done += 1
            progress(done, total_steps, "tiles")
    total /= _weight_of_tiles(image.shape[1:], batches, weights).mul_(len(networks))
    return _require_numbers(total).cpu()


def _average_on_cpu(work: tuple) -> torch.Tensor:
    try:
        return _average(*work, accumulate_on=torch.device("cpu"))
    except RuntimeError as error:
        raise _explained(error) from error


def _weight_of_tiles(shape: Sequence[int], batches: list[list[Tile]], weights: torch.Tensor) -> torch.Tensor:
    summed = weights.new_zeros(tuple(shape))
    for tile in itertools.chain.from_iterable(batches):
        summed[tile] += weights
    return summed


def _require_numbers(logits: torch.Tensor) -> torch.Tensor:
    if not all(bool(torch.isfinite(channel).all()) for channel in logits):
        raise RunError(
            "The network gave values that are no numbers; check the image for extreme intensities, or predict with "
            "device cpu, which computes in full precision."
        )
    return logits


def _is_out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in str(error).lower()


def _explained(error: RuntimeError) -> Exception:
    if _is_out_of_memory(error) or "can't allocate memory" in str(error):
        return OutOfMemoryError(
            "Predicting this image needs more memory than there is; close other programs, use device cpu, "
            "or predict with a configuration of coarser voxels."
        )
    return error


def _forget_cached_memory(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
