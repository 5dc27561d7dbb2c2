"""Instance normalisation under nnU-Net's parameter names, computed the fastest way for the device."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class InstanceNorm(nn.Module):
    """Each channel of each image to mean 0 and variance 1 over space, then scaled and shifted.

    Input and output (B, C, *space) for any number of spatial axes.
    """

    def __init__(self, features: int, eps: float = 1e-5, affine: bool = True) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(features)) if affine else None
        self.bias = nn.Parameter(torch.zeros(features)) if affine else None

    def forward(self, x: torch.Tensor, slope: float = 1.0) -> torch.Tensor:
        """Normalise, and multiply what is below 0 by `slope`; 1 leaves it."""
        followed = torch.jit.is_tracing() or torch.compiler.is_compiling()
        if x.device.type == "cuda" and not followed and _channels_are_neighbours(x):
            from . import fused_normalization  # loads triton

            return fused_normalization.normalize(x, self.weight, self.bias, self.eps, slope)
        # one group per channel is the same sum, 2.6 to 7 times faster than instance_norm on the CPU; exported networks
        # name the operation that every runtime knows
        if x.device.type == "cpu" and not torch.jit.is_tracing():
            x = functional.group_norm(x, x.shape[1], self.weight, self.bias, self.eps)
        else:
            x = functional.instance_norm(x, weight=self.weight, bias=self.bias, eps=self.eps)
        return x if slope == 1 else functional.leaky_relu(x, slope, inplace=True)


def placed(network: nn.Module, device: torch.device) -> nn.Module:
    """Move a network to a device, its weights in the order that makes convolutions fastest there."""
    network.to(device)
    if _wants_channels_as_neighbours(network, device):
        dimensions = {parameter.ndim for parameter in network.parameters()}
        network.to(memory_format=torch.channels_last_3d if 5 in dimensions else torch.channels_last)
    return network


def _wants_channels_as_neighbours(network: nn.Module, device: torch.device) -> bool:
    """On CUDA where our normalisation has its kernel; on a processor for weights in half precision.

    There a tile of the Hippocampus plan takes 44 ms so and 76 ms in torch's own order (two cores of a Xeon with AMX);
    in full precision, and in training, the order of channels side by side is the slower one.
    """
    if device.type == "cuda":
        from . import fused_normalization

        return fused_normalization.is_available(device)
    return device.type == "cpu" and next(network.parameters()).dtype == torch.bfloat16


def _channels_are_neighbours(x: torch.Tensor) -> bool:
    """As in networks that were `placed` so."""
    order = torch.channels_last_3d if x.ndim == 5 else torch.channels_last
    return x.ndim > 3 and x.shape[1] > 1 and x.is_contiguous(memory_format=order) and not x.is_contiguous()
