"""How many numbers a network learns, from its description alone."""

from __future__ import annotations

import math

from .architecture import RESIDUAL, NetworkSpec


def count_parameters(spec: NetworkSpec, in_channels: int, out_channels: int) -> int:
    """Trainable numbers of the network, every tensor counted once."""
    encoder = _residual_encoder if spec.kind == RESIDUAL else _plain_encoder
    total = encoder(spec, in_channels)
    for stage, convolutions in enumerate(reversed(spec.decoder_convs)):
        features, kernel = spec.features[stage], spec.decoder_kernels[stage]
        total += _convolution(spec, spec.features[stage + 1], features, spec.strides[stage + 1], norm=False)
        total += _convolution(spec, 2 * features, features, kernel)
        total += (convolutions - 1) * _convolution(spec, features, features, kernel)
        total += (features + 1) * out_channels
    return total


def _plain_encoder(spec: NetworkSpec, in_channels: int) -> int:
    total = 0
    for features, kernel, convolutions in zip(spec.features, spec.kernel_sizes, spec.blocks, strict=True):
        total += _convolution(spec, in_channels, features, kernel)
        total += (convolutions - 1) * _convolution(spec, features, features, kernel)
        in_channels = features
    return total


def _residual_encoder(spec: NetworkSpec, in_channels: int) -> int:
    total = _convolution(spec, in_channels, spec.features[0], spec.kernel_sizes[0])
    before = spec.features[0]
    for features, kernel, blocks in zip(spec.features, spec.kernel_sizes, spec.blocks, strict=True):
        total += _convolution(spec, before, features, kernel)
        total += (2 * blocks - 1) * _convolution(spec, features, features, kernel)
        if before != features:
            total += before * features + _norm(spec, features)
        before = features
    return total


def _convolution(spec: NetworkSpec, n_in: int, n_out: int, kernel: tuple[int, ...], norm: bool = True) -> int:
    bias = n_out if spec.conv_bias else 0
    return n_in * n_out * math.prod(kernel) + bias + (_norm(spec, n_out) if norm else 0)


def _norm(spec: NetworkSpec, features: int) -> int:
    return 2 * features if spec.norm_affine else 0
