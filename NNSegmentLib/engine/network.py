"""The two U-Nets of nnU-Net, plain and residual-encoder, in 2-D and 3-D.

Parameter names are nnU-Net's own, so that weights move both ways without a conversion. nnU-Net's modules appear
under several names (`encoder` and `decoder.encoder`, `conv` and `all_modules.0`); here these are the same module
registered twice, so the names cost nothing and `parameters()` yields each tensor once.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from ..errors import PlanError
from ..planning.architecture import RESIDUAL, SLOPE, NetworkSpec
from .convolution import Convolution3d, TransposedConvolution3d
from .normalization import InstanceNorm


def build_network(spec: NetworkSpec, in_channels: int, out_channels: int, deep_supervision: bool = False) -> UNet:
    """A freshly initialised network: (B, in_channels, *patch) → (B, out_channels, *patch) logits.

    With `deep_supervision` (an attribute that can be switched at any time) the answer is a list, full resolution
    first, each further entry one stage coarser. Raises PlanError for a network without at least two stages.
    """
    if spec.n_stages < 2:
        raise PlanError(f"A U-Net needs at least two stages, the plan has {spec.n_stages}; plan with larger patches.")
    network = UNet(spec, in_channels, out_channels, deep_supervision)
    initialize(network)
    return network


def initialize(network: nn.Module) -> None:
    """He-normal convolutions, zero biases; a residual branch starts as zero (nnU-Net's rule)."""
    for module in network.modules():
        if isinstance(module, nn.modules.conv._ConvNd):
            nn.init.kaiming_normal_(module.weight, a=SLOPE)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, ResidualBlock) and module.conv2.norm.weight is not None:
            nn.init.zeros_(module.conv2.norm.weight)


class UNet(nn.Module):
    """Encoder, decoder, and one 1×1 output layer for each decoder stage."""

    def __init__(self, spec: NetworkSpec, in_channels: int, out_channels: int, deep_supervision: bool) -> None:
        super().__init__()
        encoder = ResidualEncoder if spec.kind == RESIDUAL else PlainEncoder
        self.encoder = encoder(spec, in_channels)
        self.decoder = Decoder(spec, self.encoder, out_channels)
        self.deep_supervision = deep_supervision

    def forward(self, image: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        outputs = self.decoder(self.encoder(image), every_stage=self.deep_supervision)
        return outputs if self.deep_supervision else outputs[0]


class PlainEncoder(nn.Module):
    """Stages of convolutions; the first one of a stage has its stride."""

    def __init__(self, spec: NetworkSpec, in_channels: int) -> None:
        super().__init__()
        inputs = (in_channels, *spec.features)
        self.stages = nn.ModuleList(
            nn.Sequential(
                ConvStack(
                    spec, inputs[s], spec.features[s], spec.kernel_sizes[s], spec.blocks[s], stride=spec.strides[s]
                )
            )
            for s in range(spec.n_stages)
        )

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        return _features_of_stages(self.stages, image)


class ResidualEncoder(nn.Module):
    """A stem at full resolution, then stages of residual blocks."""

    def __init__(self, spec: NetworkSpec, in_channels: int) -> None:
        super().__init__()
        inputs = (spec.features[0], *spec.features)
        self.stem = ConvStack(spec, in_channels, spec.features[0], spec.kernel_sizes[0], 1)
        self.stages = nn.ModuleList(
            ResidualStage(spec, inputs[s], spec.features[s], spec.kernel_sizes[s], spec.strides[s], spec.blocks[s])
            for s in range(spec.n_stages)
        )

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        return _features_of_stages(self.stages, self.stem(image))


class Decoder(nn.Module):
    """Up-sampling from the coarsest stage; stage 0 of the lists is the coarsest."""

    def __init__(self, spec: NetworkSpec, encoder: nn.Module, out_channels: int) -> None:
        super().__init__()
        self.encoder = encoder
        levels = range(spec.n_stages - 2, -1, -1)
        transposed = TransposedConvolution3d if spec.dimensions == 3 else nn.ConvTranspose2d
        self.stages = nn.ModuleList(
            ConvStack(spec, 2 * spec.features[level], spec.features[level], spec.decoder_kernels[level], convs)
            for level, convs in zip(levels, spec.decoder_convs, strict=True)
        )
        self.transpconvs = nn.ModuleList(
            transposed(spec.features[level + 1], spec.features[level], stride, stride, bias=spec.conv_bias)
            for level, stride in ((level, spec.strides[level + 1]) for level in levels)
        )
        self.seg_layers = nn.ModuleList(_conv(spec)(spec.features[level], out_channels, 1) for level in levels)

    def forward(self, skips: list[torch.Tensor], every_stage: bool) -> list[torch.Tensor]:
        x, outputs = skips[-1], []
        for d, (up, stage, head) in enumerate(zip(self.transpconvs, self.stages, self.seg_layers, strict=True)):
            x = stage(torch.cat((up(x), skips[-2 - d]), dim=1))
            if every_stage or d == len(self.stages) - 1:
                outputs.append(head(x))
        return outputs[::-1]


class ConvStack(nn.Module):
    """Convolutions one after the other; only the first has the stride."""

    def __init__(self, spec: NetworkSpec, inputs: int, features: int, kernel, n: int, stride=1) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            *(
                ConvBlock(spec, inputs if i == 0 else features, features, kernel, stride if i == 0 else 1)
                for i in range(n)
            )
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.convs(x)


class ConvBlock(nn.Module):
    """Convolution, instance normalisation, leaky rectifier."""

    def __init__(
        self, spec: NetworkSpec, inputs: int, features: int, kernel, stride=1, *, active=True, bias: bool | None = None
    ) -> None:
        super().__init__()
        kernel = (kernel,) * spec.dimensions if isinstance(kernel, int) else kernel
        padding = tuple((k - 1) // 2 for k in kernel)
        bias = spec.conv_bias if bias is None else bias
        self.conv = _conv(spec)(inputs, features, kernel, stride, padding, bias=bias)
        self.norm = InstanceNorm(features, eps=spec.norm_eps, affine=spec.norm_affine)
        self.slope = SLOPE if active else 1.0
        self.all_modules = nn.Sequential(self.conv, self.norm)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self._convolved(x), self.slope)

    def _convolved(self, x: torch.Tensor) -> torch.Tensor:
        """The convolution; on a graphics card without its bias, which the normalisation removes again.

        Adding it and summing up its gradient, which is zero, are a seventh of a training step there.
        """
        followed = torch.jit.is_tracing() or torch.compiler.is_compiling()
        if x.device.type != "cuda" or followed:
            return self.conv(x)
        convolve = functional.conv3d if x.ndim == 5 else functional.conv2d
        return convolve(x, self.conv.weight, None, self.conv.stride, self.conv.padding)


class ResidualStage(nn.Module):
    """Residual blocks one after the other; the first one has the stride."""

    def __init__(self, spec: NetworkSpec, inputs: int, features: int, kernel, stride, n: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            ResidualBlock(spec, inputs, features, kernel, stride),
            *(ResidualBlock(spec, features, features, kernel, (1,) * spec.dimensions) for _ in range(n - 1)),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.blocks(x)


class ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut that pools and changes the channel count where needed."""

    def __init__(self, spec: NetworkSpec, inputs: int, features: int, kernel, stride) -> None:
        super().__init__()
        self.conv1 = ConvBlock(spec, inputs, features, kernel, stride)
        self.conv2 = ConvBlock(spec, features, features, kernel, active=False)
        pool = nn.AvgPool3d if spec.dimensions == 3 else nn.AvgPool2d
        shortcut = [pool(stride, stride)] if max(stride) > 1 else []
        shortcut += [ConvBlock(spec, inputs, features, 1, active=False, bias=False)] if inputs != features else []
        self.skip = nn.Sequential(*shortcut)
        self.activation = nn.LeakyReLU(SLOPE, inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.activation(self.conv2(self.conv1(x)) + self.skip(x))


def _features_of_stages(stages: nn.ModuleList, x: torch.Tensor) -> list[torch.Tensor]:
    features = []
    for stage in stages:
        x = stage(x)
        features.append(x)
    return features


def _conv(spec: NetworkSpec) -> type[nn.Module]:
    return Convolution3d if spec.dimensions == 3 else nn.Conv2d
