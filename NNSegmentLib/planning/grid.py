"""The voxel size everything is resampled to, and the order of the axes: nnU-Net's rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import PlanError, SettingsError
from ..fingerprint import Fingerprint

ANISOTROPIC = 3
"""An axis is coarse when its voxels are more than this factor larger, and its voxels that factor fewer."""
COARSE_PERCENTILE = 10
"""Of the spacings along a coarse axis, instead of the median: few slices are better invented than merged."""

MOST_VOXELS = 1_000_000
"""Along an axis of the median case at a given spacing; far beyond it the numbers of a plan would overflow."""

MEDIAN, COARSE, GIVEN = "median", "coarse", "given"


@dataclass(frozen=True)
class Grid:
    """The full-resolution grid; shapes and spacings in transposed order, the coarsest axis first."""

    transpose_forward: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    median_shape: tuple[float, float, float]
    """Of the cases, cropped and resampled to `spacing_mm`."""
    original_spacing_mm: tuple[float, float, float]
    """Median of the cases as they are."""
    original_shape: tuple[float, float, float]
    rule: str
    """`MEDIAN`, `COARSE` (one axis finer than the median) or `GIVEN` by the user."""
    n_cases: int

    @property
    def is_plane(self) -> bool:
        return self.median_shape[0] == 1


def find_grid(fingerprint: Fingerprint, spacing_mm: Sequence[float] | None = None) -> Grid:
    """The target grid of a data set; `spacing_mm` (z, y, x of the files) overrides the rule.

    Raises PlanError for an empty fingerprint and SettingsError for an impossible spacing.
    """
    if not fingerprint.spacings_mm or len(fingerprint.spacings_mm) != len(fingerprint.shapes_after_crop):
        raise PlanError("The fingerprint should list a shape and a spacing for every case; compute it again.")
    spacings = np.asarray(fingerprint.spacings_mm, float)
    shapes = np.asarray(fingerprint.shapes_after_crop)
    given = spacing_mm is not None
    target, rule = (require_spacing(spacing_mm), GIVEN) if given else _target_spacing(spacings, shapes)
    coarsest = int(np.argmax(target))
    order = (coarsest, *(axis for axis in range(3) if axis != coarsest))
    with np.errstate(over="ignore"):  # a given spacing may be next to nothing
        median_shape = np.median(np.rint(spacings / target * shapes), axis=0)
    if given:
        _require_voxels(median_shape, target, spacings)

    def transposed(values: np.ndarray) -> tuple[float, float, float]:
        return tuple(float(values[axis]) for axis in order)

    return Grid(
        transpose_forward=order,
        spacing_mm=transposed(target),
        median_shape=transposed(median_shape),
        original_spacing_mm=transposed(np.median(spacings, axis=0)),
        original_shape=transposed(np.median(shapes, axis=0)),
        rule=rule,
        n_cases=len(shapes),
    )


def _target_spacing(spacings: np.ndarray, shapes: np.ndarray) -> tuple[np.ndarray, str]:
    target, size = np.percentile(spacings, 50, axis=0), np.percentile(shapes, 50, axis=0)
    worst = int(np.argmax(target))
    others = [axis for axis in range(3) if axis != worst]
    finer, larger = max(target[others]), min(size[others])
    if not (target[worst] > ANISOTROPIC * finer and size[worst] * ANISOTROPIC < larger):
        return target, MEDIAN
    coarse = np.percentile(spacings[:, worst], COARSE_PERCENTILE)
    target[worst] = coarse if coarse >= finer else finer + 1e-5
    return target, COARSE


def require_spacing(spacing_mm: Sequence[float]) -> np.ndarray:
    """The spacing that a user gives (z, y, x of the files); raises SettingsError for an impossible one."""
    try:
        values = np.asarray(spacing_mm, float)
    except (TypeError, ValueError):
        values = np.empty(0)
    if values.shape != (3,) or not (np.isfinite(values).all() and values.min() > 0):
        raise SettingsError(
            f"A spacing is three positive numbers in mm (z y x), found {spacing_mm!r:.60}; give the voxel size that "
            "the images should be resampled to."
        )
    return values


def _require_voxels(median_shape: np.ndarray, target_mm: np.ndarray, spacings_mm: np.ndarray) -> None:
    """Raises SettingsError when the target spacing leaves no voxels along an axis, or far too many."""
    if median_shape.min() >= 1 and median_shape.max() <= MOST_VOXELS:
        return
    found, given, usual = (
        " × ".join(f"{value:g}" for value in values)
        for values in (median_shape, target_mm, np.median(spacings_mm, axis=0))
    )
    raise SettingsError(
        f"A spacing should leave the median case 1 to {MOST_VOXELS:,} voxels along each axis, but {given} mm (z y x) "
        f"would leave it {found}; give one nearer to the images' own, {usual} mm."
    )
