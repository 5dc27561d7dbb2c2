"""The same augmentation chain built from the transforms of batchgenerators, for comparison.

It reads whole extraction windows and works on numpy arrays on the CPU, as nnU-Net does. Its draws come from the global
generators of Python and numpy, which are seeded for every batch.
"""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..errors import SettingsError
from ..preprocessing.prepared import OUTSIDE
from .spatial import spatial_rules

if TYPE_CHECKING:
    from .augmentation import Augmentation

_ONE_AT_A_TIME = threading.Lock()


@dataclass(frozen=True)
class ReferenceAugmentation:
    """batchgenerators' transforms with the parameters of `rules`."""

    rules: Augmentation

    def __post_init__(self) -> None:
        if find_spec("batchgenerators") is None:
            raise SettingsError(
                "augmentation 'batchgenerators' needs the package of this name, found none; "
                "run 'pip install batchgenerators' or choose the augmentation 'default'."
            )

    def draw(self, rng: np.random.Generator, samples: int, channels: int) -> int:
        """The seed of a batch."""
        return int(rng.integers(2**32))

    def draw_for(self, rng: np.random.Generator, samples: int, channels: int, wanted: range) -> int:
        """The seed for some samples of a batch; they are not augmented as they would be among the others."""
        return (self.draw(rng, samples, channels) + wanted.start) % 2**32

    def apply(self, image: torch.Tensor, labels: torch.Tensor, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Extraction windows (B, C, Z, Y, X) and label maps (B, L, Z, Y, X) → network input and target (B, 1, Z, Y, X)."""
        # training and validation batches are made in two threads, and batchgenerators has one generator for both
        with _ONE_AT_A_TIME:
            random.seed(seed)
            np.random.seed(seed)
            image, labels = self._transformed(image.numpy(), labels.numpy().astype(np.float32))
        image = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))
        labels = torch.from_numpy(np.ascontiguousarray(labels).astype(np.int16))
        return self.rules.finish(image, labels, self.rules.draw_cascade(np.random.default_rng(seed), len(image)))

    def _transformed(self, image: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        image, labels = self._moved(image, labels)
        values = {"data": image, "seg": labels}
        for transform in [*intensity_transforms(self._flat), *self._mirroring()]:
            values = transform(**values)
        return values["data"], values["seg"]

    @property
    def _flat(self) -> bool:
        return len(self.rules.patch_size) == 3 and spatial_rules(self.rules.patch_size).in_plane

    def _moved(self, image: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rotated, scaled and cut to the patch; slices go to batchgenerators as further channels."""
        in_plane = spatial_rules(self.rules.patch_size).in_plane
        shapes = image.shape, labels.shape
        if in_plane:
            image, labels = (array.reshape(len(array), -1, *array.shape[3:]) for array in (image, labels))
        values = spatial_transform(self.rules.patch_size)(data=image, seg=labels)
        patch = tuple(self.rules.patch_size)[-2 if in_plane else -3 :]
        return tuple(
            values[key].reshape(*shape[:2], *(shape[2:3] if in_plane else ()), *patch)
            for key, shape in zip(("data", "seg"), shapes, strict=True)
        )

    def _mirroring(self) -> list:
        from batchgenerators.transforms.spatial_transforms import MirrorTransform

        return [MirrorTransform(self.rules.mirror_axes)] if self.rules.mirror_axes else []


def spatial_transform(patch: tuple[int, ...]):
    """Rotation and scaling of (B, C, [Z,] Y, X) extraction windows, and the cut of the patch from the middle."""
    from batchgenerators.transforms.spatial_transforms import SpatialTransform

    rules = spatial_rules(patch)
    limit = np.deg2rad(rules.rotation_degrees)
    angle = (-limit, limit)
    return SpatialTransform(
        patch[-2:] if rules.in_plane else patch,
        patch_center_dist_from_border=None,
        do_elastic_deform=False,
        angle_x=angle,
        angle_y=(0, 0) if rules.in_plane else angle,
        angle_z=(0, 0) if rules.in_plane else angle,
        scale=rules.scale,
        border_mode_data="constant",
        order_data=1,
        border_cval_seg=OUTSIDE,
        order_seg=1,
        random_crop=False,
        p_el_per_sample=0,
        p_scale_per_sample=rules.scaling_probability,
        p_rot_per_sample=rules.rotation_probability,
    )


def intensity_transforms(flat: bool) -> list:
    """nnU-Net's intensity chain; `flat` patches keep their resolution along the first axis."""
    from batchgenerators.transforms import color_transforms, noise_transforms, resample_transforms

    return [
        noise_transforms.GaussianNoiseTransform((0, 0.1), p_per_sample=0.1),
        noise_transforms.GaussianBlurTransform(
            (0.5, 1.0), different_sigma_per_axis=True, p_per_channel=0.5, p_per_sample=0.2
        ),
        color_transforms.BrightnessMultiplicativeTransform((0.75, 1.25), p_per_sample=0.15),
        color_transforms.ContrastAugmentationTransform((0.75, 1.25), p_per_sample=0.15),
        resample_transforms.SimulateLowResolutionTransform(
            (0.5, 1),
            per_channel=True,
            p_per_channel=0.5,
            order_downsample=0,
            order_upsample=1,
            p_per_sample=0.25,
            ignore_axes=(0,) if flat else None,
        ),
        color_transforms.GammaTransform((0.7, 1.5), True, True, retain_stats=True, p_per_sample=0.1),
        color_transforms.GammaTransform((0.7, 1.5), False, True, retain_stats=True, p_per_sample=0.3),
    ]
