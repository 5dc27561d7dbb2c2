"""What nnU-Net v1 did differently on the way to the network's grid: it resampled first and normalised then."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..planning.plan import Configuration, IntensityStats
from . import label_votes
from .crop import nonzero_mask
from .normalize import UNCHANGED, normalize
from .prepared import Placement
from .resample import prepared_shape, resample_labels, resample_to


def resampled_then_normalized(
    inside: np.ndarray, placement: Placement, configuration: Configuration, intensities: Sequence[IntensityStats]
) -> np.ndarray:
    """The cropped image (C, Z, Y, X) on the prepared grid, float32 (nnU-Net v1's rule).

    The mask of masked channels is resampled too, and what lies outside becomes 0. Raises as `normalize`.
    """
    shape, spacings = prepared_shape(placement), (placement.original_spacing_mm, placement.spacing_mm)
    array = resample_to(inside, shape, *spacings, configuration.resampling_data)
    mask = None
    if any(configuration.use_mask_for_norm):
        marked = nonzero_mask(inside).astype(np.int8)
        mask = resample_labels(marked, shape, *spacings, configuration.resampling_labels) > 0
    array = normalize(array, configuration.normalization, configuration.use_mask_for_norm, intensities, mask)
    for channel, scheme, is_masked in zip(
        array, configuration.normalization, configuration.use_mask_for_norm, strict=True
    ):
        if is_masked and scheme != UNCHANGED:
            channel[~mask] = 0
    return array


def resized_previous(labels: np.ndarray, placement: Placement) -> np.ndarray:
    """The previous stage's segmentation (Z, Y, X) squeezed onto the prepared grid, without the crop (nnU-Net v1's rule)."""
    transposed = np.ascontiguousarray(labels.transpose(placement.transpose_forward))
    return label_votes.resized(transposed, prepared_shape(placement), linear=True)
