"""How much memory long work will need, estimated from the plan and the images' headers before anything starts.

The numbers of bytes were measured on two cores (see Testing/benchmarks/RESULTS.md) and on a GPU taken from nnU-Net's
own rule; estimates hold within a factor of 1.5.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

from .errors import InputError
from .geometry import Geometry
from .image import read_geometry
from .machine.memory import SHARE, Need, total_gb
from .model import Model
from .planning.parameters import count_parameters
from .planning.plan import Configuration, NetworkSpec
from .planning.topology import feature_map_values
from .run import TrainingSettings
from .task import Case

_PYTHON_GB, _WITH_TORCH_GB, _WITH_CUDA_GB = 0.15, 0.45, 2.5
"""Main memory of a process before it has read anything, by what it has loaded."""
_TRAINING_BYTES_SHORT, _TRAINING_BYTES_FULL, _TRAINING_BYTES_GPU = 7.5, 14.0, 7.1
"""Per feature-map value: what is kept for the gradients, workspace, and blocks kept for the next step; on the CPU in
bfloat16 and in full precision. On the GPU nnU-Net's: 8 GB for 2 × 560e6."""
VOXELS_TURNED_TOGETHER, THREADS_THAT_TURN = 2**20, 2
"""Where the cases lie on a GPU: of the patches of a batch, unless a single patch is larger; threads that make batches."""
_TURNING_BYTES = 420
"""Per voxel of patches that are turned together on a GPU: 270, and 410 with a previous stage's labels beside."""
_RESIDENT_SHARE = 0.25
"""Cases stay in the machine's or the GPU's memory up to this share of it."""
_BATCHES_AHEAD = 6
_HEADERS = 8
"""Headers that are read to find the largest image."""
_TILE_VOXELS_CUDA, _TILE_VOXELS_CPU = 4_000_000, 200_000
"""Voxels worth one forward pass. Two cores take 8 to 14 % less for small tiles in pairs than for one after the other."""
_IN_FLIGHT = 3
"""Cases in memory while a folder is predicted: one is read, one predicted, one written."""
_ADVICE_TRAINING = "take a smaller batch or the preset 'small', or close other programs"
_ADVICE_CASES = "use fewer --workers, close other programs, or take a machine with more memory"
_ADVICE_PREDICTION = "close other programs, predict a configuration of larger voxels, or crop the images"


def training_need(
    configuration: Configuration,
    settings: TrainingSettings,
    *,
    n_channels: int,
    n_outputs: int,
    n_cases: int,
    device: str,
    short_numbers: bool = False,
    gpu_memory_gb: float = 0.0,
    ranks: int = 1,
) -> Need:
    """Peak memory of training `configuration` on a device of type `device`, main memory over all `ranks`.

    `short_numbers`: whether a CPU keeps its feature maps in bfloat16.
    """
    batch = -(-(settings.batch_size or configuration.batch_size) // ranks)
    network = _weights_gb(configuration.network, n_channels, n_outputs, settings)
    values = feature_map_values(configuration.network, configuration.patch_size, n_outputs) * batch
    cases = _all_cases_gb(configuration, settings, n_channels, n_cases)
    patches = _BATCHES_AHEAD * batch * math.prod(configuration.patch_size) * (4 * n_channels + 2) / 1e9
    if device != "cuda":
        kept = cases if stay_in_memory(cases * ranks) else 0.0
        bytes_each = _TRAINING_BYTES_SHORT if short_numbers else _TRAINING_BYTES_FULL
        each = _WITH_TORCH_GB + network + values * bytes_each / 1e9 + kept + patches
        return Need("This training", each * ranks, advice=_ADVICE_TRAINING)
    gpu = training_gpu_gb(configuration, settings, n_channels, n_outputs, batch)
    turning = turning_gb(configuration.patch_size, batch)
    gpu += cases + turning if stay_on_gpu(cases, gpu + turning, gpu_memory_gb) else 0.0
    return Need("This training", (_WITH_CUDA_GB + network + patches) * ranks, gpu, advice=_ADVICE_TRAINING)


def stay_in_memory(cases_gb: float) -> bool:
    """Whether all cases of a training are kept in main memory, else they are read from disk again and again."""
    return cases_gb <= _RESIDENT_SHARE * total_gb()


def stay_on_gpu(cases_gb: float, network_gb: float, gpu_memory_gb: float) -> bool:
    """Whether all cases of a training are kept on a GPU beside what the network needs there."""
    return cases_gb <= _RESIDENT_SHARE * gpu_memory_gb and cases_gb + network_gb <= SHARE * gpu_memory_gb


def turning_gb(patch_size: Sequence[int], batch: int) -> float:
    """Graphics memory in which the patches of batches are turned, some at a time, where the cases lie on the GPU."""
    voxels = math.prod(patch_size)
    together = min(batch * voxels, max(voxels, VOXELS_TURNED_TOGETHER))
    return THREADS_THAT_TURN * together * _TURNING_BYTES / 1e9


def training_gpu_gb(
    configuration: Configuration, settings: TrainingSettings, n_channels: int, n_outputs: int, batch: int
) -> float:
    """Graphics memory of weights and feature maps for `batch` samples at a time."""
    values = feature_map_values(configuration.network, configuration.patch_size, n_outputs) * batch
    return _weights_gb(configuration.network, n_channels, n_outputs, settings) + values * _TRAINING_BYTES_GPU / 1e9


def prediction_need(model: Model, cases: Sequence[Case], device: str, *, probabilities: bool = False) -> Need | None:
    """Peak memory of predicting `cases`; None when no header can be read, which the prediction explains better."""
    geometry = largest_image(cases)
    if geometry is None:
        return None
    what, sizes = "Predicting the largest image", _case_sizes(model, geometry, device, probabilities)
    main = sizes.in_flight(min(len(cases), _IN_FLIGHT)) / 1e9
    if device != "cuda":
        return Need(what, _WITH_TORCH_GB + main + sizes.network / 1e9, advice=_ADVICE_PREDICTION)
    gpu = (sizes.prepared + sizes.logits + sizes.sums + sizes.network) / 1e9
    return Need(what, _WITH_CUDA_GB + main, gpu, _ADVICE_PREDICTION)


@dataclass(frozen=True)
class _CaseSizes:
    """Bytes of what there is of a case during its prediction, over all parts of an ensemble."""

    image: float
    workspace: float
    """For reading and resampling it."""
    prepared: float
    logits: float
    sums: float
    """Sums of weights, and the mean over several folds."""
    answer: float
    network: float
    """Weights and feature maps; not one a case."""

    def in_flight(self, n: int) -> float:
        """Main memory for `n` cases at once: one in the network, one being read, one being written."""
        reading = self.image + self.prepared + self.workspace
        running = self.image + self.prepared + self.logits + self.sums
        writing = self.image + self.prepared + self.logits + self.answer
        if n == 1:
            return max(reading, running, writing)
        return running + reading + (writing if n > 2 else 0.0)


def _case_sizes(model: Model, geometry: Geometry, device: str, probabilities: bool) -> _CaseSizes:
    voxels, channels, outputs = math.prod(geometry.shape), len(model.channels), model.label_set.n_outputs
    prepared = logits = sums = network = 0.0
    for part in model.parts:
        c = part.configuration
        on_grid, width = voxels_on_grid(geometry, c, model.plan.transpose_forward), 4 if c.is_version_1 else 2
        prepared += 4 * channels * on_grid
        logits += width * outputs * on_grid
        sums = max(sums, width * on_grid * (1 + outputs * (len(part.members) > 1)))
        network = max(network, _predicting_bytes(c, channels, outputs, device))
    averaged = probabilities or len(model.parts) > 1
    return _CaseSizes(
        image=4 * channels * voxels,
        workspace=6 * channels * voxels + prepared,
        prepared=prepared,
        logits=logits,
        sums=sums,
        answer=voxels * (1 + 8 * outputs * averaged),
        network=network,
    )


def _predicting_bytes(c: Configuration, channels: int, outputs: int, device: str) -> float:
    """Weights, and feature maps of the tiles that are looked at together."""
    values = feature_map_values(c.network, c.patch_size, outputs) * tiles_together(c.patch_size, device)
    return 4 * count_parameters(c.network, channels, outputs) + (2 if device == "cuda" else 4) * values


def tiles_together(patch_size: Sequence[int], device: str) -> int:
    """How many tiles of a sliding window go through the network in one batch, where memory suffices."""
    worth = _TILE_VOXELS_CUDA if device == "cuda" else _TILE_VOXELS_CPU
    return max(1, worth // math.prod(patch_size))


def preparation_gb(
    cases: Sequence[Case], configuration: Configuration, transpose: Sequence[int], channels: int
) -> float:
    """Main memory in GB for preparing the largest of `cases`; 0 when no header can be read."""
    geometry = largest_image(cases)
    if geometry is None:
        return 0.0
    before, after = math.prod(geometry.shape), voxels_on_grid(geometry, configuration, transpose)
    return (before * (7 * channels + 3) + after * (8 * channels + 2)) / 1e9


def preparation_need(gb_each: float, workers: int, name: str) -> Need:
    """Main memory for preparing `workers` cases at a time for the configuration `name`."""
    return Need(f"Preparing the cases for {name}", _PYTHON_GB + gb_each * workers, advice=_ADVICE_CASES)


def fingerprint_gb(cases: Sequence[Case], channels: int) -> float:
    """Main memory in GB for reading the largest case with its labels; 0 when no header can be read."""
    geometry = largest_image(cases)
    return 0.0 if geometry is None else math.prod(geometry.shape) * (5 * channels + 3) / 1e9


def fingerprint_need(gb_each: float, workers: int) -> Need:
    """Main memory for reading `workers` cases at a time."""
    return Need("The fingerprint", _PYTHON_GB + gb_each * workers, advice=_ADVICE_CASES)


def largest_image(cases: Sequence[Case]) -> Geometry | None:
    """The grid with most voxels among the cases with the largest files; None when none can be read."""
    found = []
    files = [case.images[0] for case in cases if case.images and case.images[0].is_file()]
    for path in sorted(files, key=lambda path: path.stat().st_size)[-_HEADERS:]:
        with contextlib.suppress(InputError):
            found.append(read_geometry(path))
    return max(found, key=lambda geometry: math.prod(geometry.shape), default=None)


def voxels_on_grid(geometry: Geometry, configuration: Configuration, transpose: Sequence[int]) -> float:
    """Voxels of an image on the network's grid, not less than a patch; cropping is not foreseen."""
    shape = [geometry.shape[axis] for axis in transpose]
    spacing = tuple(geometry.spacing_mm[axis] for axis in transpose)
    target, patch = configuration.target_spacing_mm(spacing), (1, *configuration.patch_size)[-3:]
    return math.prod(max(n * s / t, p) for n, s, t, p in zip(shape, spacing, target, patch, strict=True))


def _weights_gb(spec: NetworkSpec, n_channels: int, n_outputs: int, settings: TrainingSettings) -> float:
    """Weights, gradients, what the optimiser remembers, averaged weights."""
    copies = 3 + (settings.optimizer == "adamw") + (settings.weight_averaging > 0)
    return 4 * count_parameters(spec, n_channels, n_outputs) * copies / 1e9


def _all_cases_gb(c: Configuration, settings: TrainingSettings, n_channels: int, n_cases: int) -> float:
    """All cases on the network's grid with their labels; 0 when processes read them."""
    if settings.loader_workers > 0:
        return 0.0
    shape = c.median_shape if len(c.median_shape) == 3 else (1, *c.median_shape)
    return n_cases * math.prod(shape) * (4 * n_channels + 2) / 1e9
