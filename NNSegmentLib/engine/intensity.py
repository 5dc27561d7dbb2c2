"""Intensity augmentation: nnU-Net's table of rules, draws as data, and the transforms on stacks of channels.

A transform works on planes (N, Z, Y, X): the chosen channels of the chosen samples of a batch, flattened, with one row
of drawn values (N, K) each. The same code serves one patch on the CPU and a whole batch on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from .devices import sent

_SMALL = 1e-7
Transform = Callable[[torch.Tensor, torch.Tensor, "Noise"], torch.Tensor]
"""planes (N, Z, Y, X), values (N, K) on the processor, source of noise → planes."""
Draw = Callable[[np.random.Generator, int, int], np.ndarray]
"""rng, samples B, channels C → values (B, C, K)."""


@dataclass(frozen=True)
class Noise:
    """Normal numbers for some planes of a batch: the same ones whether or not the other planes are worked on here."""

    generator: torch.Generator
    before: int = 0
    """Planes of the batch that come before these, in other processes."""
    total: int | None = None
    """Planes of the whole batch; None when all are here."""

    def like(self, planes: torch.Tensor) -> torch.Tensor:
        """Numbers for planes (N, Z, Y, X), with mean 0 and standard deviation 1."""
        shape = (self.total or len(planes), *planes.shape[1:])
        drawn = torch.randn(shape, generator=self.generator, device=planes.device)
        return drawn[self.before : self.before + len(planes)]


@dataclass(frozen=True)
class IntensityRule:
    """How often a transform happens, and with what values."""

    transform: Transform
    draw: Draw
    probability: float
    """Per sample."""
    channel_probability: float = 1.0
    """Per channel of a chosen sample."""


@dataclass(frozen=True)
class DrawnTransform:
    """A transform that will happen: to which channels of which samples, with what values."""

    transform: Transform
    rows: tuple[int, ...]
    """sample · C + channel."""
    values: np.ndarray
    """(rows, K)."""
    before: int = 0
    """Rows of the batch before these, in other processes."""
    total: int | None = None
    """Rows in the whole batch; None when all are here."""

    def part(self, first: int, last: int) -> DrawnTransform:
        """What happens to the rows from `first` up to, not including, `last`, which are counted from 0 there."""
        start, end = np.searchsorted(self.rows, (first, last)).tolist()
        rows = tuple(row - first for row in self.rows[start:end])
        return DrawnTransform(self.transform, rows, self.values[start:end], start, len(self.rows))


def draw_intensities(
    rng: np.random.Generator, rules: Sequence[IntensityRule], samples: int, channels: int
) -> tuple[DrawnTransform, ...]:
    """What happens to a batch of `samples` patches with `channels` channels, in order."""
    return tuple(_drawn(rng, rule, samples, channels) for rule in rules)


def _drawn(rng: np.random.Generator, rule: IntensityRule, samples: int, channels: int) -> DrawnTransform:
    chosen = rng.random((samples, 1)) < rule.probability
    chosen = chosen & (rng.random((samples, channels)) < rule.channel_probability)
    values = rule.draw(rng, samples, channels)
    return DrawnTransform(rule.transform, tuple(np.flatnonzero(chosen).tolist()), values[chosen])


def change_intensities(image: torch.Tensor, drawn: Sequence[DrawnTransform], generator: torch.Generator) -> None:
    """Apply drawn transforms to a contiguous batch (B, C, Z, Y, X), in place."""
    planes = image.view(-1, *image.shape[2:])
    for one in drawn:
        if one.rows:
            rows, values = sent(torch.tensor(one.rows), image.device), torch.as_tensor(one.values, dtype=torch.float32)
            planes[rows] = one.transform(planes[rows], values, Noise(generator, one.before, one.total))


def add_noise(planes: torch.Tensor, values: torch.Tensor, noise: Noise) -> torch.Tensor:
    """Add Gaussian noise; values (N, 1): standard deviation."""
    return planes.addcmul_(noise.like(planes), _per_plane(values[:, 0], planes))


def blur(planes: torch.Tensor, values: torch.Tensor, noise: Noise) -> torch.Tensor:
    """Gaussian smoothing with mirrored borders; values (N, 3): sigma in voxels along (z, y, x)."""
    for axis in (1, 2, 3):
        if planes.shape[axis] > 1:
            planes = _smoothed(planes, axis, values[:, axis - 1].numpy())
    return planes


def _smoothed(planes: torch.Tensor, axis: int, sigmas: np.ndarray) -> torch.Tensor:
    n, radius = planes.shape[axis], int(4 * sigmas.max() + 0.5)
    mirrored = np.pad(np.arange(n), radius, mode="reflect")
    padded = planes.index_select(axis, sent(torch.as_tensor(mirrored), planes.device))
    weights = sent(torch.as_tensor(_gaussian(sigmas, radius), dtype=torch.float32), planes.device)
    smooth = padded.narrow(axis, radius, n) * _per_plane(weights[:, radius])
    for tap in range(1, radius + 1):
        both = padded.narrow(axis, radius - tap, n) + padded.narrow(axis, radius + tap, n)
        smooth.addcmul_(both, _per_plane(weights[:, radius + tap]))
    return smooth


def _gaussian(sigmas: np.ndarray, radius: int) -> np.ndarray:
    """Kernels (N, 2·radius + 1) of sum 1, each cut at 4 sigma."""
    taps = np.abs(np.arange(-radius, radius + 1))
    kernels = np.exp(-0.5 * (taps / sigmas[:, None]) ** 2)
    kernels[taps > (4 * sigmas[:, None] + 0.5).astype(int)] = 0
    return kernels / kernels.sum(1, keepdims=True)


def scale_brightness(planes: torch.Tensor, values: torch.Tensor, noise: Noise) -> torch.Tensor:
    """Multiply; values (N, 1): factor."""
    return planes.mul_(_per_plane(values[:, 0], planes))


def change_contrast(planes: torch.Tensor, values: torch.Tensor, noise: Noise) -> torch.Tensor:
    """Stretch about the mean, within the former range; values (N, 1): factor."""
    low, high = _range(planes)
    mean = planes.mean((1, 2, 3), keepdim=True)
    stretched = (planes - mean).mul_(_per_plane(values[:, 0], planes)).add_(mean)
    return stretched.clamp_(low, high)


def lower_resolution(planes: torch.Tensor, values: torch.Tensor, noise: Noise) -> torch.Tensor:
    """Fewer voxels and back: nearest down, linear up; values (N, 3): zoom along (z, y, x)."""
    size = planes.shape[1:]
    for plane, zooms in zip(planes, values.tolist(), strict=True):
        smaller = [max(1, round(n * zoom)) for n, zoom in zip(size, zooms, strict=True)]
        coarse = F.interpolate(plane[None, None], size=smaller, mode="nearest-exact")
        plane.copy_(F.interpolate(coarse, size=size, mode="trilinear", align_corners=False)[0, 0])
    return planes


def change_gamma(planes: torch.Tensor, values: torch.Tensor, noise: Noise) -> torch.Tensor:
    """Raise to a power within the range, keeping mean and standard deviation; values (N, 1): gamma."""
    mean, deviation = _moments(planes)
    low, high = _range(planes)
    width = (high - low).clamp_min(_SMALL)
    bent = ((planes - low) / width).pow_(_per_plane(values[:, 0], planes)).mul_(high - low).add_(low)
    bent_mean, bent_deviation = _moments(bent)
    return bent.sub_(bent_mean).mul_(deviation / bent_deviation.clamp_min(_SMALL)).add_(mean)


def change_inverted_gamma(planes: torch.Tensor, values: torch.Tensor, noise: Noise) -> torch.Tensor:
    """`change_gamma` of the negative; values (N, 1): gamma."""
    return change_gamma(planes.neg_(), values, noise).neg_()


def _per_plane(values: torch.Tensor, beside: torch.Tensor | None = None) -> torch.Tensor:
    """One value for each plane, where the planes `beside` them lie."""
    return (values if beside is None else sent(values, beside.device)).view(-1, 1, 1, 1)


def _range(planes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    low, high = torch.aminmax(planes.flatten(1), dim=1)
    return _per_plane(low), _per_plane(high)


def _moments(planes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of each plane; several times faster than torch.std."""
    mean = planes.mean((1, 2, 3), keepdim=True)
    return mean, (planes - mean).square_().mean((1, 2, 3), keepdim=True).sqrt_()


def _one_for_all_channels(low: float, high: float) -> Draw:
    return lambda rng, samples, channels: np.broadcast_to(
        rng.uniform(low, high, (samples, 1, 1)), (samples, channels, 1)
    )


def _uniform(low: float, high: float, axes: int = 1) -> Draw:
    return lambda rng, samples, channels: rng.uniform(low, high, (samples, channels, axes))


def _below_or_above_one(low: float, high: float) -> Draw:
    """Half of the values uniform below 1, half above."""

    def draw(rng: np.random.Generator, samples: int, channels: int) -> np.ndarray:
        shape = (samples, channels, 1)
        return np.where(rng.random(shape) < 0.5, rng.uniform(low, 1, shape), rng.uniform(1, high, shape))

    return draw


def _same_zoom(low: float, high: float, keep_first_axis: bool) -> Draw:
    def draw(rng: np.random.Generator, samples: int, channels: int) -> np.ndarray:
        zooms = np.repeat(rng.uniform(low, high, (samples, channels, 1)), 3, axis=2)
        zooms[..., 0] = 1.0 if keep_first_axis else zooms[..., 0]
        return zooms

    return draw


def default_rules(flat: bool) -> tuple[IntensityRule, ...]:
    """nnU-Net's table; `flat` patches keep their resolution along the first axis."""
    return (
        # nnU-Net calls the drawn number a variance and uses it as standard deviation
        IntensityRule(add_noise, _one_for_all_channels(0, 0.1), 0.1),
        IntensityRule(blur, _uniform(0.5, 1, axes=3), 0.2, 0.5),
        IntensityRule(scale_brightness, _below_or_above_one(0.75, 1.25), 0.15),
        IntensityRule(change_contrast, _below_or_above_one(0.75, 1.25), 0.15),
        IntensityRule(lower_resolution, _same_zoom(0.5, 1, keep_first_axis=flat), 0.25, 0.5),
        IntensityRule(change_inverted_gamma, _below_or_above_one(0.7, 1.5), 0.1),
        IntensityRule(change_gamma, _below_or_above_one(0.7, 1.5), 0.3),
    )


def light_rules() -> tuple[IntensityRule, ...]:
    """Noise and brightness only."""
    return tuple(rule for rule in default_rules(flat=False) if rule.transform in (add_noise, scale_brightness))
