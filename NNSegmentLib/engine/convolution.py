"""A 3-D convolution that asks oneDNN directly when a processor predicts."""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import nn


class Convolution3d(nn.Conv3d):
    """nn.Conv3d; predictions on the CPU bring the weights into oneDNN's order once instead of for every tile.

    A tile of the Hippocampus plan takes 103 ms so on two cores, 107 ms when its weights are brought into order each time,
    and 125 ms with the plain routine that torch takes for a single small patch. oneDNN's pointwise convolution, which
    takes 90 ms, is out of the question: it rounds ten times as coarsely, and nnU-Net's probabilities were missed by 0.01.
    """

    _packed: tuple[tuple, torch.Tensor] | None = None
    """What the weights were packed from, and the packed weights; as large as the weights themselves."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
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
