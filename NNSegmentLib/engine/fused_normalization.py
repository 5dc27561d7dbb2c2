"""Instance normalisation and leaky rectifier in one, for CUDA GPUs and tensors whose channels lie side by side.

Convolutions in half precision are fastest when the channels of a voxel are neighbours in memory, but torch's instance
normalisation copies such tensors into the other order and back. These kernels read them as they are: two readings and
one writing forward, and four and one backward, in all arithmetic in single precision. They are written in triton, which
comes with torch on Linux; without it everything works in torch's own order.
"""

from __future__ import annotations

import contextlib
import math
import subprocess
import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import torch
from torch.nn import functional

try:
    import triton
    import triton.language as tl
except (ImportError, OSError, AttributeError):
    triton = None

_CANNOT_BE_BUILT = (
    *((triton.TritonError,) if triton else ()),
    *(RuntimeError, OSError, subprocess.SubprocessError, ImportError, ValueError, AttributeError, TypeError),
)
"""What triton raises without a compiler, with one that fails, or beside a driver that it does not know."""
_ROWS, _CHANNELS = 128, 32
"""Voxels and channels that a kernel works on together."""
_MOST_PARTS, _PART_ROWS = 256, 128
"""An image is divided into parts, to keep all of a GPU at work; small ones into fewer."""


class Rows(NamedTuple):
    """A tensor (B, C, *space) as rows of channels, one for each voxel."""

    images: int
    voxels: int
    channels: int
    stride: int
    """Elements from one row to the next."""


def rows_of(x: torch.Tensor) -> Rows | None:
    """How the rows of a tensor lie whose channels are neighbours; None for other tensors."""
    images, channels, *space = x.shape
    # where an axis has one voxel only, its step means nothing
    steps = [(n, step) for n, step in zip((images, *space), (x.stride(0), *x.stride()[2:]), strict=True) if n > 1]
    stride = expected = steps[-1][1] if steps else channels
    for n, step in reversed(steps):
        if step != expected:
            return None
        expected *= n
    neighbours = channels == 1 or x.stride(1) == 1
    return Rows(images, math.prod(space), channels, stride) if neighbours and stride >= channels else None


def normalize(
    x: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None, eps: float, slope: float
) -> torch.Tensor:
    """Each channel of each image of (B, C, *space) normalised over space, scaled, shifted, and rectified.

    Values below 0 are multiplied by `slope`; 1 leaves them. Channels must lie side by side, see `rows_of`.
    """
    if weight is None:
        weight, bias = x.new_ones(x.shape[1], dtype=torch.float32), x.new_zeros(x.shape[1], dtype=torch.float32)
    return _Normalization.apply(x, weight, bias, eps, slope)


@lru_cache(maxsize=8)
def is_available(device: torch.device) -> bool:
    """Whether the kernels can be built for a device, and compute what torch does on an example."""
    if triton is None or device.type != "cuda":
        return False
    try:
        with torch.inference_mode(False), torch.enable_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of triton, about ways of computing that nobody has chosen
            return _is_right(device, torch.float32, 1e-3) and _is_right(device, torch.float16, 2e-2)
    except _CANNOT_BE_BUILT:
        return False


def _is_right(device: torch.device, kind: torch.dtype, allowed: float) -> bool:
    x = torch.randn((2, 8, 4, 5, 6), generator=torch.Generator().manual_seed(0)).to(device, kind)
    weight, bias = torch.linspace(0.5, 1.5, 8, device=device), torch.linspace(-1, 1, 8, device=device)
    found = _gradient_of_example(normalize, x, weight, bias)
    return torch.allclose(found.float(), _gradient_of_example(_plain, x.float(), weight, bias), atol=allowed)


def _gradient_of_example(way: Callable[..., torch.Tensor], x, weight, bias) -> torch.Tensor:
    given = x.to(memory_format=torch.channels_last_3d).requires_grad_()
    way(given, weight, bias, 1e-5, 0.01).float().square().sum().backward()
    return given.grad


def _plain(x, weight, bias, eps: float, slope: float) -> torch.Tensor:
    return functional.leaky_relu(functional.instance_norm(x, weight=weight, bias=bias, eps=eps), slope)


class _Normalization(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, eps: float, slope: float):
        rows = rows_of(x)
        y = torch.empty_like(x)
        with _on(x.device):
            mean, rstd = _moments(x, rows, eps)
            _normalize_kernel[_grid(rows)](
                x, y, mean, rstd, weight, bias, rows.voxels, rows.channels, rows.stride, rows_of(y).stride, slope,
                ROWS=_ROWS, CHANNELS=_CHANNELS,
            )  # fmt: skip
        ctx.save_for_backward(x, weight, bias, mean, rstd)
        ctx.slope = slope
        return y

    @staticmethod
    def backward(ctx, gradient):
        x, weight, bias, mean, rstd = ctx.saved_tensors
        if rows_of(gradient) is None:
            gradient = gradient.contiguous(memory_format=_neighbours(gradient))
        rows, steps = rows_of(x), rows_of(gradient).stride
        with _on(x.device):
            parts, part = _parts(rows)
            sums = x.new_empty((2, rows.images, parts, rows.channels), dtype=torch.float32)
            given = (x, gradient, mean, rstd, weight, bias)
            _sums_kernel[(rows.images * parts, _blocks(rows))](
                *given, sums, rows.images, rows.voxels, rows.channels, rows.stride, steps, parts, part, ctx.slope,
                ROWS=_ROWS, CHANNELS=_CHANNELS,
            )  # fmt: skip
            sums = sums.sum(2)
            result = torch.empty_like(x)
            _gradient_kernel[_grid(rows)](
                *given, sums, result, rows.images, rows.voxels, rows.channels, rows.stride, steps,
                rows_of(result).stride, ctx.slope, ROWS=_ROWS, CHANNELS=_CHANNELS,
            )  # fmt: skip
        bias_gradient, weight_gradient = sums.sum(1)
        return result, weight_gradient, bias_gradient, None, None


def _on(device: torch.device) -> contextlib.AbstractContextManager:
    """triton starts kernels on the current GPU, wherever the tensors lie."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


def _moments(x: torch.Tensor, rows: Rows, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean, and 1 / standard deviation, (B, C) each."""
    parts, part = _parts(rows)
    partial = x.new_empty((2, rows.images, parts, rows.channels), dtype=torch.float32)
    whole = x.new_empty((2, rows.images, rows.channels), dtype=torch.float32)
    _moments_kernel[(rows.images * parts, _blocks(rows))](
        x, partial, rows.images, rows.voxels, rows.channels, rows.stride, parts, part, ROWS=_ROWS, CHANNELS=_CHANNELS
    )
    _join_kernel[(rows.images, _blocks(rows))](
        partial, whole, rows.images, rows.voxels, rows.channels, parts, part, eps,
        PARTS=_MOST_PARTS, CHANNELS=_CHANNELS,
    )  # fmt: skip
    return whole[0], whole[1]


def _parts(rows: Rows) -> tuple[int, int]:
    """How many parts an image is divided into, and the rows of one."""
    parts = max(1, min(_MOST_PARTS, rows.voxels // _PART_ROWS))
    part = -(-rows.voxels // parts)
    return -(-rows.voxels // part), part


def _blocks(rows: Rows) -> int:
    return -(-rows.channels // _CHANNELS)


def _grid(rows: Rows) -> tuple[int, int, int]:
    return -(-rows.voxels // _ROWS), _blocks(rows), rows.images


def _neighbours(x: torch.Tensor) -> torch.memory_format:
    return torch.channels_last_3d if x.ndim == 5 else torch.channels_last


if triton is not None:

    @triton.jit(do_not_specialize=["images", "voxels", "parts", "part"])
    def _moments_kernel(
        x, partial, images, voxels, channels, stride, parts, part, ROWS: tl.constexpr, CHANNELS: tl.constexpr
    ):
        """Mean and sum of squared deviations of each part (Chan's parallel algorithm, which loses no digits)."""
        image, place = tl.program_id(0) // parts, tl.program_id(0) % parts
        c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
        first = place * part
        last = tl.minimum(first + part, voxels)
        start = x + image.to(tl.int64) * voxels * stride
        count = 0.0
        mean, squares = tl.zeros((CHANNELS,), tl.float32), tl.zeros((CHANNELS,), tl.float32)
        row = first
        while row < last:
            v = row + tl.arange(0, ROWS)
            there = (v < last)[:, None] & (c < channels)[None, :]
            values = tl.load(start + v.to(tl.int64)[:, None] * stride + c[None, :], there, 0.0).to(tl.float32)
            n = tl.minimum(last - row, ROWS).to(tl.float32)
            here = tl.sum(values, 0) / n
            apart = tl.where(there, values - here[None, :], 0.0)
            step = here - mean
            mean += step * (n / (count + n))
            squares += tl.sum(apart * apart, 0) + step * step * (count * n / (count + n))
            count += n
            row += ROWS
        at = (image * parts + place) * channels + c
        tl.store(partial + at, mean, c < channels)
        tl.store(partial + images * parts * channels + at, squares, c < channels)

    @triton.jit(do_not_specialize=["images", "voxels", "parts", "part"])
    def _join_kernel(
        partial, whole, images, voxels, channels, parts, part, eps, PARTS: tl.constexpr, CHANNELS: tl.constexpr
    ):
        """Mean and 1 / standard deviation of whole images from those of their parts."""
        image = tl.program_id(0)
        c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
        place = tl.arange(0, PARTS)
        there = (place < parts)[:, None] & (c < channels)[None, :]
        n = tl.where(place < parts, tl.minimum(part, voxels - place * part), 0).to(tl.float32)[:, None]
        at = partial + (image * parts + place)[:, None] * channels + c[None, :]
        means = tl.load(at, there, 0.0)
        mean = tl.sum(means * n, 0) / voxels
        apart = means - mean[None, :]
        squares = tl.sum(tl.load(at + images * parts * channels, there, 0.0) + n * apart * apart, 0)
        tl.store(whole + image * channels + c, mean, c < channels)
        tl.store(whole + (images + image) * channels + c, 1 / tl.sqrt(squares / voxels + eps), c < channels)

    @triton.jit
    def _tile(voxels, channels, ROWS: tl.constexpr, CHANNELS: tl.constexpr):
        """What a program of a `_grid` works on: its image, rows and channels, and which of them are there."""
        image = tl.program_id(2)
        v = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
        c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
        inside = c < channels
        return image, image.to(tl.int64) * voxels + v, c, inside, (v < voxels)[:, None] & inside[None, :]

    @triton.jit(do_not_specialize=["voxels"])
    def _normalize_kernel(
        x, y, mean, rstd, weight, bias, voxels, channels, stride, y_stride, slope,
        ROWS: tl.constexpr, CHANNELS: tl.constexpr,
    ):  # fmt: skip
        image, row, c, inside, there = _tile(voxels, channels, ROWS, CHANNELS)
        values = tl.load(x + row[:, None] * stride + c[None, :], there, 0.0).to(tl.float32)
        scale = tl.load(rstd + image * channels + c, inside, 0.0) * tl.load(weight + c, inside, 0.0)
        shift = tl.load(bias + c, inside, 0.0) - tl.load(mean + image * channels + c, inside, 0.0) * scale
        values = values * scale[None, :] + shift[None, :]
        values = tl.where(values >= 0, values, values * slope)
        tl.store(y + row[:, None] * y_stride + c[None, :], values, there)

    @triton.jit
    def _normalized_and_gradient(x, gradient, row, c, there, stride, g_stride, mean, rstd, weight, bias, slope):
        """The normalised values, and the gradient behind the rectifier."""
        values = tl.load(x + row[:, None] * stride + c[None, :], there, 0.0).to(tl.float32)
        g = tl.load(gradient + row[:, None] * g_stride + c[None, :], there, 0.0).to(tl.float32)
        normal = tl.where(there, (values - mean[None, :]) * rstd[None, :], 0.0)
        return normal, tl.where(normal * weight[None, :] + bias[None, :] >= 0, g, g * slope)

    @triton.jit(do_not_specialize=["images", "voxels", "parts", "part"])
    def _sums_kernel(
        x, gradient, mean, rstd, weight, bias, sums, images, voxels, channels, stride, g_stride, parts, part, slope,
        ROWS: tl.constexpr, CHANNELS: tl.constexpr,
    ):  # fmt: skip
        """Sums over each part of the gradient, and of the gradient times the normalised values."""
        image, place = tl.program_id(0) // parts, tl.program_id(0) % parts
        c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
        inside = c < channels
        first = place * part
        last = tl.minimum(first + part, voxels)
        m = tl.load(mean + image * channels + c, inside, 0.0)
        r = tl.load(rstd + image * channels + c, inside, 0.0)
        w, b = tl.load(weight + c, inside, 0.0), tl.load(bias + c, inside, 0.0)
        plain, weighted = tl.zeros((CHANNELS,), tl.float32), tl.zeros((CHANNELS,), tl.float32)
        start = first
        while start < last:
            v = start + tl.arange(0, ROWS)
            there = (v < last)[:, None] & inside[None, :]
            row = image.to(tl.int64) * voxels + v
            normal, g = _normalized_and_gradient(x, gradient, row, c, there, stride, g_stride, m, r, w, b, slope)
            plain += tl.sum(g, 0)
            weighted += tl.sum(g * normal, 0)
            start += ROWS
        at = (image * parts + place) * channels + c
        tl.store(sums + at, plain, inside)
        tl.store(sums + images * parts * channels + at, weighted, inside)

    @triton.jit(do_not_specialize=["images", "voxels"])
    def _gradient_kernel(
        x, gradient, mean, rstd, weight, bias, sums, result, images, voxels, channels, stride, g_stride, r_stride, slope,
        ROWS: tl.constexpr, CHANNELS: tl.constexpr,
    ):  # fmt: skip
        image, row, c, inside, there = _tile(voxels, channels, ROWS, CHANNELS)
        at = image * channels + c
        m, r = tl.load(mean + at, inside, 0.0), tl.load(rstd + at, inside, 0.0)
        w, b = tl.load(weight + c, inside, 0.0), tl.load(bias + c, inside, 0.0)
        normal, g = _normalized_and_gradient(x, gradient, row, c, there, stride, g_stride, m, r, w, b, slope)
        plain = tl.load(sums + at, inside, 0.0) / voxels
        weighted = tl.load(sums + images * channels + at, inside, 0.0) / voxels
        values = (w * r)[None, :] * (g - plain[None, :] - normal * weighted[None, :])
        tl.store(result + row[:, None] * r_stride + c[None, :], values, there)
