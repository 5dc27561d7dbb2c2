"""From voxel size and patch to the shape of a U-Net: which axes are halved at which stage, and what that costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .plan import RESIDUAL, NetworkSpec

MIN_EDGE = 4
"""Feature maps never get smaller than this along an axis."""
SIMILAR = 2
"""Voxel sizes within this factor count as equal."""


@dataclass(frozen=True)
class Topology:
    """Strides and kernels of each stage, stage 0 first, and the patch rounded up so that every halving is exact."""

    patch_size: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]
    kernel_sizes: tuple[tuple[int, ...], ...]

    @property
    def n_stages(self) -> int:
        return len(self.strides)

    @property
    def divisor(self) -> tuple[int, ...]:
        """By which each axis of the patch can be divided."""
        return tuple(math.prod(axis) for axis in zip(*self.strides, strict=True))


def find_topology(spacing_mm: Sequence[float], patch_size: Sequence[float]) -> Topology:
    """nnU-Net's rule: halve the finest axes until all are similar, then all, while they keep `MIN_EDGE` voxels."""
    axes = range(len(spacing_mm))
    spacing, size = list(spacing_mm), list(patch_size)
    kernel = [1] * len(spacing)
    strides, kernels = [(1,) * len(spacing)], []
    while halved := _axes_to_halve(spacing, size):
        # an axis keeps its kernel of 3 even if the others grow past it again
        kernel = [3 if spacing[a] / min(spacing) < SIMILAR else kernel[a] for a in axes]
        strides.append(tuple(2 if a in halved else 1 for a in axes))
        kernels.append(tuple(kernel))
        spacing = [s * stride for s, stride in zip(spacing, strides[-1], strict=True)]
        size = [math.ceil(n / 2) if a in halved else n for a, n in enumerate(size)]
    kernels.append((3,) * len(spacing))
    divisor = [math.prod(axis) for axis in zip(*strides, strict=True)]
    patch = tuple(int(math.ceil(n / d) * d) for n, d in zip(patch_size, divisor, strict=True))
    return Topology(patch, tuple(strides), tuple(kernels))


def feature_map_values(network: NetworkSpec, patch_size: Sequence[int], n_labels: int) -> int:
    """Numbers in the feature maps of one sample, nnU-Net's estimate of memory; the image itself does not count."""
    voxels, size = [], list(patch_size)
    for stride in network.strides:
        size = [n // s for n, s in zip(size, stride, strict=True)]
        voxels.append(math.prod(size))
    maps = [features * n for features, n in zip(network.features, voxels, strict=True)]
    encoder = _residual_encoder(network, maps) if network.kind == RESIDUAL else _plain_encoder(network, maps)
    # one transposed convolution for each decoder stage
    decoder = sum((convs + 1) * m for convs, m in zip(network.decoder_convs, reversed(maps[:-1]), strict=True))
    return encoder + decoder + n_labels * voxels[0]


def _axes_to_halve(spacing: list[float], size: list[float]) -> list[int]:
    large = [a for a, n in enumerate(size) if n >= 2 * MIN_EDGE]
    if not large:
        return []
    finest = min(spacing[a] for a in large)
    halved = [a for a in large if spacing[a] / finest < SIMILAR]
    # a single axis is halved only while it stays well above the smallest edge
    return halved if len(halved) > 1 or size[halved[0]] >= 3 * MIN_EDGE else []


def _plain_encoder(network: NetworkSpec, maps: list[int]) -> int:
    return sum(convs * m for convs, m in zip(network.blocks, maps, strict=True))


def _residual_encoder(network: NetworkSpec, maps: list[int]) -> int:
    """The stem, two convolutions a block, and a projection where the features or the size change."""
    blocks = sum(2 * n * m for n, m in zip(network.blocks, maps, strict=True))
    features = (network.features[0], *network.features)
    projections = sum(
        m
        for stage, m in enumerate(maps)
        if features[stage] != features[stage + 1] or math.prod(network.strides[stage]) > 1
    )
    return maps[0] + blocks + projections
