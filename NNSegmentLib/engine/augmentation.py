"""The augmentation chain of training: what is drawn for a batch, and its application on any device.

Rotation and scaling happen while the patches are read (`spatial`); the rest happens here to the whole batch in
nnU-Net's order: intensities, mirroring, masked channels, the previous stage's labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from ..planning.plan import Configuration
from ..run import TrainingSettings
from .cascade_augmentation import CascadeRules, Disturbance, disturb, draw_disturbance, masks_of
from .intensity import DrawnTransform, IntensityRule, change_intensities, default_rules, draw_intensities, light_rules
from .spatial import SpatialRules, spatial_rules

_STRONG = {"rotation_probability": 0.5, "scaling_probability": 0.5}


@dataclass(frozen=True)
class AugmentationDraw:
    """All that chance decides about a batch after its patches are read."""

    intensities: tuple[DrawnTransform, ...]
    mirrored: tuple[tuple[int, ...], ...]
    """For each sample, the axes of (Z, Y, X) that are mirrored."""
    disturbances: tuple[Disturbance, ...]
    """For each sample of a cascade."""
    noise_seed: int

    def part(self, samples: range, channels: int) -> AugmentationDraw:
        """The same decisions for some samples of the batch, which have `channels` image channels."""
        rows = samples.start * channels, samples.stop * channels
        chosen = slice(samples.start, samples.stop)
        return AugmentationDraw(
            tuple(one.part(*rows) for one in self.intensities),
            self.mirrored[chosen],
            self.disturbances[chosen],
            self.noise_seed,
        )


@dataclass(frozen=True)
class Augmentation:
    """What may happen to the patches of a configuration."""

    patch_size: tuple[int, ...]
    """(z, y, x) or (y, x)."""
    kind: str = "default"
    """As in `TrainingSettings.augmentation`."""
    mirror_axes: tuple[int, ...] = ()
    """Axes of (Z, Y, X)."""
    masked_channels: tuple[int, ...] = ()
    """Channels that are 0 outside the non-zero mask, and stay so."""
    previous_values: tuple[int, ...] = ()
    """Label values of the previous stage that become input channels."""

    @property
    def spatial(self) -> SpatialRules | None:
        """Rotation and scaling; None for 'none'."""
        if self.kind == "none":
            return None
        rules = spatial_rules(self.patch_size)
        return replace(rules, **_STRONG) if self.kind == "strong" else rules

    @property
    def intensities(self) -> tuple[IntensityRule, ...]:
        """The intensity rules of this kind."""
        flat = len(self.patch_size) == 3 and spatial_rules(self.patch_size).in_plane
        if self.kind == "none":
            return ()
        return light_rules() if self.kind == "light" else default_rules(flat)

    def draw(self, rng: np.random.Generator, samples: int, channels: int) -> AugmentationDraw:
        """Decide about a batch of `samples` patches with `channels` image channels."""
        return AugmentationDraw(
            draw_intensities(rng, self.intensities, samples, channels),
            tuple(tuple(a for a in self.mirror_axes if rng.random() < 0.5) for _ in range(samples)),
            self.draw_cascade(rng, samples),
            int(rng.integers(2**62)),
        )

    def draw_for(self, rng: np.random.Generator, samples: int, channels: int, wanted: range) -> AugmentationDraw:
        """Decide about a whole batch, and keep what concerns the `wanted` samples."""
        drawn = self.draw(rng, samples, channels)
        return drawn if len(wanted) == samples else drawn.part(wanted, channels)

    def draw_cascade(self, rng: np.random.Generator, samples: int) -> tuple[Disturbance, ...]:
        """What happens to the previous stage's labels; nothing without augmentation or cascade."""
        n_labels = 0 if self.kind == "none" else len(self.previous_values)
        return tuple(draw_disturbance(rng, n_labels, CascadeRules()) for _ in range(samples if n_labels else 0))

    def apply(
        self, image: torch.Tensor, labels: torch.Tensor, drawn: AugmentationDraw
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Image (B, C, Z, Y, X) float32 and label maps (B, L, Z, Y, X) → network input and target (B, 1, Z, Y, X).

        Both arguments are overwritten.
        """
        generator = torch.Generator(image.device).manual_seed(drawn.noise_seed)
        change_intensities(image, drawn.intensities, generator)
        mirror(image, labels, drawn.mirrored)
        return self.finish(image, labels, drawn.disturbances)

    def finish(
        self, image: torch.Tensor, labels: torch.Tensor, disturbances: Sequence[Disturbance]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Masked channels, background outside the non-zero mask, and the previous stage's labels as channels."""
        for channel in self.masked_channels:
            image[:, channel].masked_fill_(labels[:, 0] < 0, 0.0)
        labels.clamp_(min=0)
        if self.previous_values:
            masks = masks_of(labels[:, 1], self.previous_values)
            for sample, disturbance in enumerate(disturbances):
                masks[sample] = disturb(masks[sample], disturbance, CascadeRules())
            image = torch.cat([image, masks.to(image.dtype)], dim=1)
        return image, labels[:, :1]


def mirror(image: torch.Tensor, labels: torch.Tensor, mirrored: Sequence[Sequence[int]]) -> None:
    """Mirror each sample of (B, ., Z, Y, X) along its axes, in place."""
    for sample, axes in enumerate(mirrored):
        if axes:
            behind_channels = [axis + 1 for axis in axes]
            image[sample] = image[sample].flip(behind_channels)
            labels[sample] = labels[sample].flip(behind_channels)


def training_augmentation(
    configuration: Configuration, settings: TrainingSettings, previous_values: Sequence[int] = ()
) -> Augmentation:
    """What the settings ask for; without augmentation patches are plain, as in validation."""
    if settings.augmentation == "none":
        return validation_augmentation(configuration, previous_values)
    planes = int(configuration.is_2d)
    dimensions = len(configuration.patch_size)
    allowed = range(dimensions) if settings.mirror_axes is None else settings.mirror_axes
    return Augmentation(
        configuration.patch_size,
        settings.augmentation,
        tuple(axis + planes for axis in allowed if axis < dimensions),
        tuple(channel for channel, masked in enumerate(configuration.use_mask_for_norm) if masked),
        tuple(previous_values),
    )


def validation_augmentation(configuration: Configuration, previous_values: Sequence[int] = ()) -> Augmentation:
    """Plain patches; only the previous stage's labels become channels."""
    return Augmentation(configuration.patch_size, "none", previous_values=tuple(previous_values))
