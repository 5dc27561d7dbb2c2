"""Intensities to the range the network is trained on: nnU-Net's schemes by their class names, on float32."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import ImageError, PlanError
from ..planning.plan import IntensityStats

SMALLEST_DIVISOR = 1e-8
"""nnU-Net divides by at least this, so that a constant image becomes 0."""
UNCHANGED = "NoNormalization"
CASE_CT = "CT2"
"""nnU-Net v1's name for clipping as CT does, then a z-score of the voxels between the limits."""


def normalize(
    image: np.ndarray,
    schemes: Sequence[str],
    use_mask: Sequence[bool],
    intensities: Sequence[IntensityStats],
    mask: np.ndarray | None = None,
) -> np.ndarray:
    """A new contiguous float32 array (C, Z, Y, X), each channel by its scheme.

    `mask` (Z, Y, X), True inside, is used by z-scores whose `use_mask` is set. Raises PlanError when the plan
    describes another number of channels or an unknown scheme, ImageError when a picture is not within 0…255.
    """
    if len(image) != len(schemes):
        raise PlanError(
            f"The plan was made for {len(schemes)} channels, the image has {len(image)}; give the image files of all "
            "channels in the task's order."
        )
    result = np.array(image, np.float32, order="C")
    for i, (channel, scheme) in enumerate(zip(result, schemes, strict=True)):
        stats = intensities[i] if i < len(intensities) else None
        _scheme(scheme)(channel, mask if use_mask[i] else None, stats)
    return result


def require_known_schemes(schemes: Sequence[str]) -> None:
    """Raises PlanError naming the first scheme that is unknown here."""
    for scheme in schemes:
        _scheme(scheme)


def _z_score(channel: np.ndarray, mask: np.ndarray | None, stats: IntensityStats | None) -> None:
    if mask is None or mask.all():
        _standardize(channel)
    elif mask.any():
        inside = channel[mask]
        _standardize(inside)
        channel[mask] = inside


def _ct(channel: np.ndarray, mask: np.ndarray | None, stats: IntensityStats | None) -> None:
    np.clip(channel, *_limits(stats), out=channel)
    channel -= stats.mean
    channel /= max(stats.std, SMALLEST_DIVISOR)


def _limits(stats: IntensityStats | None) -> tuple[float, float]:
    if stats is None:
        raise PlanError(
            "CT normalisation needs foreground_intensity_properties_per_channel of every channel in the plans file; "
            "plan the task again."
        )
    return stats.percentile_00_5, stats.percentile_99_5


def _case_ct(channel: np.ndarray, mask: np.ndarray | None, stats: IntensityStats | None) -> None:
    low, high = _limits(stats)
    between = channel[(channel > low) & (channel < high)]
    np.clip(channel, low, high, out=channel)
    channel -= between.mean(dtype=np.float64) if between.size else 0.0
    channel /= max(float(between.std(dtype=np.float64)) if between.size else 0.0, SMALLEST_DIVISOR)


def _unchanged(channel: np.ndarray, mask: np.ndarray | None, stats: IntensityStats | None) -> None:
    pass


def _rescale(channel: np.ndarray, mask: np.ndarray | None, stats: IntensityStats | None) -> None:
    channel -= channel.min()
    channel /= max(float(channel.max()), SMALLEST_DIVISOR)


def _rgb(channel: np.ndarray, mask: np.ndarray | None, stats: IntensityStats | None) -> None:
    low, high = float(channel.min()), float(channel.max())
    if low < 0 or high > 255:
        raise ImageError(
            f"RGB normalisation needs values from 0 to 255, found {low:g} to {high:g}; name the channel differently "
            "in dataset.json (for example 'rescale_to_0_1') and plan again."
        )
    channel /= 255.0


_SCHEMES = {
    "ZScoreNormalization": _z_score,
    "CTNormalization": _ct,
    CASE_CT: _case_ct,
    UNCHANGED: _unchanged,
    "RescaleTo01Normalization": _rescale,
    "RGBTo01Normalization": _rgb,
}


def _scheme(name: str):
    if name not in _SCHEMES:
        raise PlanError(f"The plan asks for the normalisation {name}; supported are {', '.join(_SCHEMES)}.")
    return _SCHEMES[name]


def _standardize(values: np.ndarray) -> None:
    """Zero mean and unit standard deviation in place.

    The sums run in float32 over rows and in float64 over them: as exact as needed without a float64 copy. The mean is
    taken off twice, because the mean of large values is itself rounded to float32.
    """
    rows = values.reshape(-1, values.shape[-1])
    for _ in range(2):
        rows -= np.float32(rows.sum(axis=1).sum(dtype=np.float64) / values.size)
    variance = np.einsum("ij,ij->i", rows, rows).sum(dtype=np.float64) / values.size
    rows /= np.float32(max(np.sqrt(variance), SMALLEST_DIVISOR))
