"""From voxel size and patch to the shape of a U-Net: which axes are halved at which stage, and what that costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .architecture import RESIDUAL, NetworkSpec

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


def output_size(network: NetworkSpec, patch_size: Sequence[int]) -> tuple[int, ...]:
    """Voxels of the network's answer to a patch, by the arithmetic of its convolutions.

    Raises ValueError when there are not two stages, or one has no convolution or a single voxel, or does not fit the
    stage it is joined to.
    """
    if network.n_stages < 2:
        raise ValueError("a U-Net needs at least two stages")
    sizes, size = [], tuple(patch_size)
    stem = network.kind == RESIDUAL
    if stem:
        size = _after_convolutions(size, network.kernel_sizes[0], 1, 1)
    for kernel, stride, blocks in zip(network.kernel_sizes, network.strides, network.blocks, strict=True):
        shortcut = tuple(n // s for n, s in zip(size, stride, strict=True))
        size = _after_convolutions(size, kernel, stride, blocks * (2 if stem else 1))
        if stem and size != shortcut:
            raise ValueError(f"a residual block of {size} voxels has a shortcut of {shortcut}")
        sizes.append(size)
    levels = range(network.n_stages - 2, -1, -1)
    for level, convs in zip(levels, network.decoder_convs, strict=True):
        size = tuple(n * s for n, s in zip(size, network.strides[level + 1], strict=True))
        if size != sizes[level]:
            raise ValueError(f"a decoder stage of {size} voxels joins an encoder stage of {sizes[level]}")
        size = _after_convolutions(size, network.decoder_kernels[level], 1, convs)
    return size


def _after_convolutions(size: tuple[int, ...], kernel, stride, n: int) -> tuple[int, ...]:
    """Voxels after `n` padded convolutions, the first with the stride; one number stands for all axes."""
    if n < 1:
        raise ValueError("a stage has no convolution")
    kernel, stride = ((v,) * len(size) if isinstance(v, int) else v for v in (kernel, stride))
    for number in range(n):
        steps = stride if number == 0 else (1,) * len(size)
        size = tuple((m + 2 * ((k - 1) // 2) - k) // s + 1 for m, k, s in zip(size, kernel, steps, strict=True))
    if math.prod(size) <= 1 or min(size) < 1:
        raise ValueError(f"a stage of {size} voxels cannot be normalised")
    return size


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
