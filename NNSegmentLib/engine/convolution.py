"""3-D convolutions that ask oneDNN directly when a processor predicts, and spare its wrong kernels when it trains."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import nn

from .devices import has_amx

_PLANES_A_THREAD, _LARGEST_PLANE = 16, 256**2
_FEW_CHANNELS, _SMALL_PLANE = 128, 600
"""Where oneDNN's gradients for AMX were compared with those in full precision and found right, see RESULTS.md."""


class Convolution3d(nn.Conv3d):
    """nn.Conv3d; predictions on the CPU bring the weights into oneDNN's order once instead of for every tile.

    A tile of the Hippocampus plan takes 103 ms so on two cores, 107 ms when its weights are brought into order each time,
    and 125 ms with the plain routine that torch takes for a single small patch. oneDNN's pointwise convolution, which
    takes 90 ms, is out of the question: it rounds ten times as coarsely, and nnU-Net's probabilities were missed by 0.01.
    """

    _packed: tuple[tuple, torch.Tensor] | None = None
    """What the weights were packed from, and the packed weights; as large as the weights themselves."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if _is_at_risk(x, self):
            return _WithExactWeightGradient.apply(x, self.weight, self.bias, self.stride, self.padding, False)
        if not (_is_prediction(x) and _packing_works()):
            return super().forward(x)
        where = (self.padding, self.stride, self.dilation, self.groups)
        return _convolved(x, self._packed_for(x.shape), self.bias, where)

    def _packed_for(self, shape: torch.Size) -> torch.Tensor:
        """The weights in oneDNN's order; packed again when they have changed, or patches have another size."""
        weight = self.weight
        version = None if weight.is_inference() else weight._version
        key = (tuple(shape[1:]), weight.data_ptr(), version)
        if self._packed is None or self._packed[0] != key:
            where = (self.padding, self.stride, self.dilation, self.groups)
            self._packed = (key, _pack(weight.detach(), where, shape))
        return self._packed[1]


class TransposedConvolution3d(nn.ConvTranspose3d):
    """nn.ConvTranspose3d with the same care in training."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As nn.ConvTranspose3d, for the size of output that follows from the input's."""
        if _is_at_risk(x, self):
            return _WithExactWeightGradient.apply(x, self.weight, self.bias, self.stride, self.padding, True)
        return super().forward(x)


class _WithExactWeightGradient(torch.autograd.Function):
    """A convolution in bfloat16 whose weights' gradient is computed in full precision.

    For the gradient by the weights in bfloat16, oneDNN 3.12 has kernels for AMX that write beyond their memory when the
    depth that a thread works on is small: on an Intel Xeon they ended the process with 4 × 112 × 112 voxels, gave NaN
    with 2 × 64 × 64, and with 64 channels were wrong by 2 % (5 × 40 × 56) to 35 % (1 × 64 × 64) without a word.
    """

    @staticmethod
    def forward(ctx, x, weight, bias, stride, padding, transposed: bool):
        ctx.kind, ctx.where = x.dtype, (list(stride), list(padding), [1, 1, 1], transposed, [0, 0, 0], 1)
        x = x.to(torch.bfloat16)
        ctx.save_for_backward(x, weight)
        ctx.biases = None if bias is None else [bias.numel()]
        convolve = F.conv_transpose3d if transposed else F.conv3d
        return convolve(x, weight.to(x.dtype), None if bias is None else bias.to(x.dtype), stride, padding)

    @staticmethod
    def backward(ctx, gradient):
        x, weight = ctx.saved_tensors
        backward, by_input = torch.ops.aten.convolution_backward, None
        if ctx.needs_input_grad[0]:
            half = weight.to(x.dtype)
            by_input = backward(gradient, x, half, ctx.biases, *ctx.where, [True, False, False])[0].to(ctx.kind)
        wanted = [False, True, ctx.biases is not None]
        _, by_weight, by_bias = backward(gradient.float(), x.float(), weight, ctx.biases, *ctx.where, wanted)
        return by_input, by_weight, by_bias, None, None, None


def _is_at_risk(x: torch.Tensor, convolution: nn.Module) -> bool:
    """Whether a convolution trains in bfloat16 on a processor with AMX, outside of what was found to be right there.

    Right are 16 and more planes for each thread, up to 256 × 256 voxels, and small planes with few channels.
    """
    if x.device.type != "cpu" or not (torch.is_grad_enabled() and convolution.weight.requires_grad):
        return False
    if not torch.is_autocast_enabled("cpu") or torch.jit.is_tracing() or not has_amx():
        return False
    transposed = isinstance(convolution, nn.ConvTranspose3d)
    depth, height, width = x.shape[2:]
    plane = height * width * (math.prod(convolution.stride[1:]) if transposed else 1)
    deep = depth // convolution.stride[0] >= _PLANES_A_THREAD * torch.get_num_threads() and plane <= _LARGEST_PLANE
    few = max(convolution.in_channels, convolution.out_channels) <= _FEW_CHANNELS
    return not (deep or (few and plane <= _SMALL_PLANE))


def _is_prediction(x: torch.Tensor) -> bool:
    plain = x.device.type == "cpu" and x.dtype is torch.float32 and not torch.is_autocast_enabled("cpu")
    followed = torch.jit.is_tracing() or torch.compiler.is_compiling()
    return plain and not torch.is_grad_enabled() and not followed


def _pack(weight: torch.Tensor, where: tuple, shape: torch.Size) -> torch.Tensor:
    return torch._C._nn.mkldnn_reorder_conv3d_weight(weight.to_mkldnn(), *where, list(shape))


def _convolved(x: torch.Tensor, packed: torch.Tensor, bias: torch.Tensor | None, where: tuple) -> torch.Tensor:
    return torch.mkldnn_convolution(x, packed, bias, *where)


@lru_cache(maxsize=1)
def _packing_works() -> bool:
    """Whether this torch has oneDNN, and its interface, which is not a public one, does what we expect of it."""
    if not torch.backends.mkldnn.is_available():
        return False
    where, x, weight = ((1, 1, 1), (1, 1, 1), (1, 1, 1), 1), torch.ones(1, 2, 4, 4, 4), torch.ones(3, 2, 3, 3, 3)
    try:
        found = _convolved(x, _pack(weight, where, x.shape), None, where)
    except (AttributeError, RuntimeError, TypeError):
        return False
    return torch.equal(found, F.conv3d(x, weight, padding=1))
