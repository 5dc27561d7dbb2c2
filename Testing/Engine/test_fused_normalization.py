"""The fused normalisation against torch's own in double precision, in triton's interpreter and on a graphics card.

Where its relative error is allowed 1e-6 in single and 1e-3 in half precision.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import pytest
import torch
from torch.nn import functional

SHAPES = [(2, 12, 5, 6, 7), (3, 40, 9, 8, 5), (2, 8, 30, 31), (2, 33, 20, 16, 5), (1, 5, 1, 1, 9)]
"""Few and many channels, several blocks of them and a broken one, several parts, slices, a line of voxels."""


def errors_of(device: str, shape, precision: torch.dtype, slope: float, offset: float = 3.0) -> dict[str, float]:
    """Relative errors of the result and of the three gradients; the outer gradient is a part of a larger tensor."""
    from NNSegmentLib.engine import fused_normalization

    torch.manual_seed(0)
    order = torch.channels_last_3d if len(shape) == 5 else torch.channels_last
    x = (2 * torch.randn(shape) + offset).to(precision)
    weight, bias = torch.rand(shape[1]) + 0.5, torch.randn(shape[1])
    twice = torch.randn(shape[0], 2 * shape[1], *shape[2:]).to(precision)

    exact = [t.double().requires_grad_() for t in (x, weight, bias)]
    y = functional.instance_norm(exact[0], weight=exact[1], bias=exact[2], eps=1e-5)
    y = functional.leaky_relu(y, slope)
    y.backward(twice[:, shape[1] :].double())

    ours = [t.to(device).requires_grad_() for t in (x.to(memory_format=order), weight, bias)]
    found = fused_normalization.normalize(*ours, 1e-5, slope)
    found.backward(twice.to(device).to(memory_format=order)[:, shape[1] :])
    assert found.dtype is precision
    assert found.is_contiguous(memory_format=order)

    pairs = {"result": (found, y)} | {
        name: (a.grad, b.grad) for name, a, b in zip(("x", "weight", "bias"), ours, exact, strict=True)
    }
    return {
        name: float((a.detach().cpu().double() - b.detach()).norm() / b.detach().norm())
        for name, (a, b) in pairs.items()
    }


def require_small_errors(device: str) -> None:
    for shape in SHAPES:
        for slope in (0.01, 1.0):
            for precision, allowed in ((torch.float32, 1e-6), (torch.float16, 1e-3)):
                found = errors_of(device, shape, precision, slope)
                assert max(found.values()) < allowed, (shape, slope, precision, found)
    # deviations that are small beside the mean lose no digits
    assert max(errors_of(device, SHAPES[3], torch.float32, 0.01, offset=300.0).values()) < 1e-4


def require_right_examples(device: str) -> None:
    """What decides whether the kernels are used."""
    from NNSegmentLib.engine import fused_normalization

    assert fused_normalization._is_right(torch.device(device), torch.float32, 1e-5)
    assert fused_normalization._is_right(torch.device(device), torch.float16, 5e-3)


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not here, so there are no kernels")
def test_in_the_interpreter():
    """In a process of its own: triton must know from its start that it interprets."""
    code = "from test_fused_normalization import *; require_small_errors('cpu'); require_right_examples('cpu')"
    here = os.path.dirname(__file__)
    search = os.pathsep.join([here, os.path.dirname(os.path.dirname(here)), os.environ.get("PYTHONPATH", "")])
    around = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": search}
    done = subprocess.run([sys.executable, "-c", code], env=around, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")
def test_on_the_graphics_card():
    pytest.importorskip("triton", reason="triton is not here, so there are no kernels")
    from NNSegmentLib.engine import fused_normalization

    assert fused_normalization.is_available(torch.device("cuda"))
    require_small_errors("cuda")


def test_rows_are_recognised():
    from NNSegmentLib.engine.fused_normalization import rows_of

    last = torch.zeros(2, 12, 5, 6, 7).to(memory_format=torch.channels_last_3d)
    assert rows_of(last) == (2, 210, 12, 12)
    assert rows_of(last[:, 4:]) == (2, 210, 8, 12)
    assert rows_of(torch.zeros(2, 3, 4, 5).to(memory_format=torch.channels_last)) == (2, 20, 3, 3)
    assert rows_of(torch.zeros(2, 12, 5, 6, 7)) is None
    assert rows_of(last[:, :, 1:]) is None
    assert rows_of(last[..., ::2]) is None
    # where an axis has one voxel only, its step means nothing
    assert rows_of(torch.zeros(480).as_strided((2, 8, 5, 6, 1), (240, 1, 48, 8, 1))) == (2, 30, 8, 8)
    assert rows_of(torch.zeros(1, 5, 1, 1, 1)) == (1, 1, 5, 5)
