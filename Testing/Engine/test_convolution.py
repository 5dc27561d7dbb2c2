"""Convolutions that train in bfloat16 against full precision; on processors with AMX also where oneDNN is wrong."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from NNSegmentLib.engine import convolution
from NNSegmentLib.engine.convolution import Convolution3d, TransposedConvolution3d
from NNSegmentLib.engine.devices import has_amx

ALLOWED = 0.01
"""Relative error; bfloat16 rounds by 0.2 %."""


def gradients(layer: torch.nn.Module, x: torch.Tensor, short: bool) -> list[torch.Tensor]:
    """The answer, and the gradients by input, weight and bias."""
    x = x.clone().requires_grad_()
    layer.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=short):
        y = layer(x)
    torch.manual_seed(1)
    (y.float() * torch.randn(y.shape)).sum().backward()
    return [y.detach().float(), x.grad, layer.weight.grad.clone(), *([] if layer.bias is None else [layer.bias.grad])]


def require_same(layer: torch.nn.Module, x: torch.Tensor) -> None:
    for found, expected in zip(gradients(layer, x, True), gradients(layer, x, False), strict=True):
        assert found.dtype is torch.float32
        assert (found - expected).norm() < ALLOWED * expected.norm()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("kind", "kernel", "stride", "padding"),
    [
        (Convolution3d, (3, 3, 3), (1, 1, 1), (1, 1, 1)),
        (Convolution3d, (1, 3, 3), (1, 2, 2), (0, 1, 1)),
        (Convolution3d, (1, 1, 1), (1, 1, 1), (0, 0, 0)),
        (TransposedConvolution3d, (1, 2, 2), (1, 2, 2), (0, 0, 0)),
    ],
)
def test_with_amx_the_weights_gradient_is_that_of_full_precision(monkeypatch, kind, kernel, stride, padding, bias):
    torch.manual_seed(0)
    layer, x = kind(5, 6, kernel, stride, padding, bias=bias), torch.randn(2, 5, 4, 30, 28)
    applied = []
    exact = convolution._WithExactWeightGradient.apply
    monkeypatch.setattr(convolution, "has_amx", lambda: True)
    monkeypatch.setattr(
        convolution._WithExactWeightGradient, "apply", lambda *given: applied.append(1) or exact(*given)
    )

    require_same(layer, x)

    assert applied == [1]  # in bfloat16 only


@pytest.mark.skipif(not has_amx(), reason="this processor has no AMX, and its gradients no fault")
@pytest.mark.parametrize(
    ("shape", "channels", "threads"),
    [((5, 40, 56), 64, 1), ((2, 64, 64), 32, 1), ((1, 64, 64), 64, 2), ((1, 40, 56), 320, 1), ((4, 112, 112), 16, 1)],
)
def test_gradients_are_right_where_they_ended_the_process_or_were_wrong(shape, channels, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        torch.manual_seed(0)
        require_same(Convolution3d(channels, channels, 3, padding=1), torch.randn(1, channels, *shape))
    finally:
        torch.set_num_threads(before)


def test_what_was_found_right_stays_fast(monkeypatch):
    monkeypatch.setattr(convolution, "has_amx", lambda: True)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    full, deep = Convolution3d(1, 32, 3), Convolution3d(64, 128, 3)

    def at_risk(layer, *shape) -> bool:
        return convolution._is_at_risk(torch.empty(1, layer.in_channels, *shape), layer)

    with torch.autocast("cpu", torch.bfloat16):
        assert not at_risk(full, 40, 56, 40)
        assert not at_risk(deep, 20, 28, 20)
        assert at_risk(full, 10, 256, 224)
        assert at_risk(full, 40, 320, 320)
        assert at_risk(deep, 10, 32, 28)
        assert at_risk(Convolution3d(128, 256, 3), 5, 7, 5)
        with torch.no_grad():
            assert not at_risk(full, 10, 256, 224)
    assert not at_risk(full, 10, 256, 224)


def test_without_bfloat16_it_is_torchs_own():
    torch.manual_seed(0)
    layer, x = TransposedConvolution3d(3, 4, 2, 2), torch.randn(1, 3, 4, 5, 6)
    assert torch.equal(layer(x), functional.conv_transpose3d(x, layer.weight, layer.bias, 2))
