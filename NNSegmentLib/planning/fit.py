"""The largest patch that fits the memory budget, and the batch that fills it: nnU-Net's rules."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .plan import NetworkSpec
from .presets import MIN_BATCH, Preset
from .topology import Topology, feature_map_values, find_topology

_FIRST_PATCH = {2: 2048, 3: 256}
"""Edge of the square or cube with as many voxels as the patch that the search starts from."""


@dataclass(frozen=True)
class Fit:
    """Patch, network and batch of one configuration, and the numbers that led to them."""

    patch_size: tuple[int, ...]
    network: NetworkSpec
    first_patch: tuple[int, ...]
    """Before shrinking: isotropic in mm, no larger than the median case, rounded up to whole strides."""
    values: int
    """Feature-map values of one sample."""
    batch_by_memory: int
    batch_by_data: int
    """Largest batch that holds no more than the preset's share of the data set."""
    batch_size: int

    @property
    def shrank(self) -> bool:
        return self.patch_size != self.first_patch


def fit_patch_and_batch(
    spacing_mm: Sequence[float], median_shape: Sequence[float], dataset_voxels: float, n_labels: int, preset: Preset
) -> Fit:
    """Shrink the patch until a batch of two fits the budget, then enlarge the batch.

    `spacing_mm` and `median_shape` are (z, y, x) or (y, x); `dataset_voxels` counts all cases in 3-D.
    """
    dimensions = len(spacing_mm)
    first = topology = find_topology(spacing_mm, _first_patch(spacing_mm, median_shape))
    network, values = _cost(topology, n_labels, preset)
    while _too_large(topology, values, preset) and max(topology.divisor) > 1:
        topology = find_topology(spacing_mm, _smaller_patch(topology, spacing_mm, median_shape))
        network, values = _cost(topology, n_labels, preset)
    by_memory = round(preset.budget(dimensions) / values * preset.reference_batch(dimensions))
    by_data = round(dataset_voxels * preset.data_share / math.prod(topology.patch_size))
    return Fit(
        patch_size=topology.patch_size,
        network=network,
        first_patch=first.patch_size,
        values=values,
        batch_by_memory=by_memory,
        batch_by_data=by_data,
        batch_size=int(max(min(by_memory, by_data, preset.max_batch(dimensions)), MIN_BATCH)),
    )


def _first_patch(spacing_mm: Sequence[float], median_shape: Sequence[float]) -> list[float]:
    dimensions = len(spacing_mm)
    per_mm = 1 / np.asarray(spacing_mm, float)
    voxels = _FIRST_PATCH[dimensions] ** dimensions
    edges = per_mm * (voxels / np.prod(per_mm)) ** (1 / dimensions)
    return [min(float(round(edge)), float(most)) for edge, most in zip(edges, median_shape, strict=True)]


def _cost(topology: Topology, n_labels: int, preset: Preset) -> tuple[NetworkSpec, int]:
    network = _network(topology, preset)
    return network, feature_map_values(network, topology.patch_size, n_labels)


def _network(topology: Topology, preset: Preset) -> NetworkSpec:
    n = topology.n_stages
    most = preset.max_features(len(topology.patch_size))
    return NetworkSpec(
        kind=preset.network,
        features=tuple(min(preset.base_features * 2**stage, most) for stage in range(n)),
        kernel_sizes=topology.kernel_sizes,
        strides=topology.strides,
        blocks=preset.blocks(n),
        decoder_convs=preset.decoder_convs(n),
    )


def _too_large(topology: Topology, values: int, preset: Preset) -> bool:
    dimensions = len(topology.patch_size)
    voxels = math.prod(topology.patch_size)
    return values > preset.largest_sample(dimensions) or voxels > preset.max_patch_voxels(dimensions)


def _smaller_patch(topology: Topology, spacing_mm: Sequence[float], median_shape: Sequence[float]) -> list[int]:
    """The patch one step smaller along the axis that covers most of the median case, the last of equals.

    The step is the divisor that the smaller patch will have: 256 becomes 224, not 192.
    """
    covered = [n / most for n, most in zip(topology.patch_size, median_shape, strict=True)]
    axis = max(range(len(covered)), key=lambda a: (covered[a], a))
    attempt, patch = list(topology.patch_size), list(topology.patch_size)
    attempt[axis] -= topology.divisor[axis]
    patch[axis] -= find_topology(spacing_mm, attempt).divisor[axis]
    return patch
