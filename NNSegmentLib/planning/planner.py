"""From a fingerprint to a plan: nnU-Net's rules, one decision after the other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..errors import PlanError
from ..fingerprint import Fingerprint
from ..image import READERS, needs_nibabel
from ..task import Task
from . import reasons as why
from .fit import Fit, fit_patch_and_batch
from .grid import GIVEN, Grid, find_grid, require_spacing
from .lowres import Lowres, find_lowres
from .plan import CONFIGURATIONS, Configuration, Plan, require_plans_name
from .presets import Preset, find_preset

DEFAULT_PLANS = "nnUNetPlans"
SHARED_DATA = ("2d", "3d_fullres")
MASK_BELOW = 0.75
"""Median share of an image that is left after cropping, below which z-scores are taken inside the mask."""

_SCHEMES = {
    "ct": "CTNormalization",
    "nonorm": "NoNormalization",
    "rescale_to_0_1": "RescaleTo01Normalization",
    "rgb_to_0_1": "RGBTo01Normalization",
}
_ZSCORE = "ZScoreNormalization"


@dataclass(frozen=True)
class _Draft:
    """What all configurations of one plan have in common."""

    task: Task
    preset: Preset
    plans_name: str
    grid: Grid
    normalization: tuple[str, ...]
    masks: tuple[bool, ...]

    @property
    def n_labels(self) -> int:
        return len(self.task.labels.labels)

    def data_identifier(self, name: str) -> str:
        shared = self.preset.shares_data and name in SHARED_DATA and self.grid.rule != GIVEN
        return f"{DEFAULT_PLANS if shared else self.plans_name}_{name}"

    def fit(self, spacing_mm: Sequence[float], median_shape: Sequence[float]) -> Fit:
        voxels = math.prod(self.grid.median_shape) * self.task.declared_training_cases
        return fit_patch_and_batch(spacing_mm, median_shape, voxels, self.n_labels, self.preset)

    def configuration(self, name: str, fit: Fit, spacing_mm, median_shape, batch_dice: bool, **stages) -> Configuration:
        return Configuration(
            name=name,
            data_identifier=self.data_identifier(name),
            batch_size=fit.batch_size,
            patch_size=fit.patch_size,
            median_shape=tuple(median_shape),
            spacing_mm=tuple(spacing_mm),
            normalization=self.normalization,
            use_mask_for_norm=self.masks,
            network=fit.network,
            batch_dice=batch_dice,
            **stages,
        )


def make_plan(
    task: Task,
    fingerprint: Fingerprint,
    *,
    preset: str = "default",
    gpu_memory_gb: float | None = None,
    name: str | None = None,
    spacing_mm: Sequence[float] | None = None,
) -> Plan:
    """The plan nnU-Net would make; reads and writes no files.

    `name` renames the plans file; `spacing_mm` (z, y, x of the files) overrides the target spacing; `gpu_memory_gb`
    scales the preset's memory budget. Raises PlanError when the task cannot be planned, SettingsError for settings out
    of range.
    """
    chosen = require_plan_settings(preset, gpu_memory_gb, name, spacing_mm)
    _require_channels(task, fingerprint)
    grid = find_grid(fingerprint, spacing_mm)
    schemes = tuple(normalization_scheme(channel.name) for channel in task.channels)
    small = fingerprint.median_relative_size_after_cropping < MASK_BELOW
    masks = tuple(small and scheme == _ZSCORE for scheme in schemes)
    draft = _Draft(task, chosen, name or chosen.plans_name, grid, schemes, masks)
    planned, reasons = _plan_configurations(draft)
    if not planned:
        raise PlanError(reasons["2d"])
    return Plan(
        dataset_name=task.name,
        name=draft.plans_name,
        transpose_forward=grid.transpose_forward,
        configurations=planned,
        intensities=fingerprint.intensities,
        original_median_spacing_mm=grid.original_spacing_mm,
        original_median_shape=tuple(round(n) for n in grid.original_shape),
        reader=choose_reader(task, fingerprint),
        planner=chosen.planner,
        reasons=_common_reasons(draft, fingerprint) | _of_planned(reasons, planned),
    )


def require_plan_settings(
    preset: str, gpu_memory_gb: float | None, name: str | None, spacing_mm: Sequence[float] | None
) -> Preset:
    """The preset, scaled to the memory; raises SettingsError for settings that no task can be planned with."""
    if name is not None:
        require_plans_name(name)
    if spacing_mm is not None:
        require_spacing(spacing_mm)
    return find_preset(preset).for_memory(gpu_memory_gb)


def normalization_scheme(channel_name: str) -> str:
    """nnU-Net's class name of the normalisation that a channel's name asks for."""
    return _SCHEMES.get(channel_name.casefold(), _ZSCORE)


def choose_reader(task: Task, fingerprint: Fingerprint) -> str:
    """The reader nnU-Net would choose: the one dataset.json names, else the first that can read the first image."""
    if task.reader in READERS:
        return task.reader
    ending = task.file_ending.lower()
    is_plane = fingerprint.shapes_after_crop[0][0] == 1
    if task.cases and needs_nibabel(task.cases[0].images[0]):
        return "NibabelIO"
    for reader, endings in READERS.items():
        if ending in endings and (reader != "NaturalImage2DIO" or is_plane or ending != ".tif"):
            return reader
    raise PlanError(f"No reader is known for files ending in {task.file_ending}; convert the images to .nii.gz.")


def _require_channels(task: Task, fingerprint: Fingerprint) -> None:
    if len(task.channels) != len(fingerprint.intensities):
        raise PlanError(
            f"{task.name} has {len(task.channels)} channels but its fingerprint {len(fingerprint.intensities)}; "
            "compute the fingerprint again."
        )


def _plan_configurations(draft: _Draft) -> tuple[tuple[Configuration, ...], dict[str, str]]:
    """All configurations that apply, in nnU-Net's order, with the reasons of each."""
    grid = draft.grid
    plane = draft.fit(grid.spacing_mm[1:], grid.median_shape[1:])
    reasons = {"2d": why.PLANE_2D if grid.is_plane else why.PLANE} | _fit_reasons(
        draft, "2d", plane, grid.median_shape[1:]
    )
    planned = [draft.configuration("2d", plane, grid.spacing_mm[1:], grid.median_shape[1:], batch_dice=True)]
    if not grid.is_plane:
        volumes, more = _plan_volumes(draft)
        planned, reasons = planned + volumes, reasons | more
    else:
        reasons |= dict.fromkeys(CONFIGURATIONS[1:], why.PLANE_2D)
    for configuration in planned:
        if configuration.network.n_stages < 2:  # the cascade's network is that of 3d_fullres
            reasons[configuration.name] = reasons[configuration.inherits_from or configuration.name]
    return tuple(c for c in planned if c.network.n_stages > 1), reasons


def _plan_volumes(draft: _Draft) -> tuple[list[Configuration], dict[str, str]]:
    grid = draft.grid
    full = draft.fit(grid.spacing_mm, grid.median_shape)
    low = find_lowres(grid, full, draft.task.declared_training_cases, draft.n_labels, draft.preset)
    fullres = draft.configuration("3d_fullres", full, grid.spacing_mm, grid.median_shape, batch_dice=low.worthwhile)
    reasons = {"3d_fullres": why.FULL, "3d_lowres": why.lowres_reason(low)}
    reasons |= _fit_reasons(draft, "3d_fullres", full, grid.median_shape)
    if not low.worthwhile:
        return [fullres], reasons | {"3d_cascade_fullres": why.lowres_reason(low)}
    cascade = replace(fullres, name="3d_cascade_fullres", inherits_from="3d_fullres", previous_stage="3d_lowres")
    reasons |= _fit_reasons(draft, "3d_lowres", low.fit, low.median_shape) | {"3d_cascade_fullres": why.CASCADE}
    return [_lowres_configuration(draft, low), fullres, cascade], reasons


def _lowres_configuration(draft: _Draft, low: Lowres) -> Configuration:
    return draft.configuration(
        "3d_lowres", low.fit, low.spacing_mm, low.median_shape, batch_dice=False, next_stage="3d_cascade_fullres"
    )


def _common_reasons(draft: _Draft, fingerprint: Fingerprint) -> dict[str, str]:
    names = [channel.name for channel in draft.task.channels]
    return {
        "preset": why.preset_reason(draft.preset),
        "transpose": why.transpose_reason(draft.grid),
        "spacing": why.spacing_reason(draft.grid),
        "normalization": why.normalization_reason(names, draft.normalization, fingerprint.intensities),
        "mask": why.mask_reason(fingerprint.median_relative_size_after_cropping, any(draft.masks), MASK_BELOW),
    }


def _fit_reasons(draft: _Draft, name: str, fit: Fit, median_shape: Sequence[float]) -> dict[str, str]:
    if fit.network.n_stages < 2:
        return {name: why.too_small_reason(fit, draft.preset)}
    return {
        f"{name}.patch_size": why.patch_reason(fit, median_shape, draft.preset),
        f"{name}.batch_size": why.batch_reason(fit, draft.preset),
        f"{name}.network": why.network_reason(fit),
    }


def _of_planned(reasons: dict[str, str], planned: Sequence[Configuration]) -> dict[str, str]:
    """Details of the configurations in the plan, and for the others why they are not in it."""
    names = {c.name for c in planned}
    return {key: text for key, text in reasons.items() if "." not in key or key.split(".")[0] in names}
