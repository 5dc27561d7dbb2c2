"""Why the plan is as it is: one sentence per decision, with the numbers, for a reader who knows images but not nnU-Net."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import counted
from ..grids.planes import is_of_pictures
from .fit import Fit
from .grid import COARSE, GIVEN, Grid
from .lowres import ENOUGH_CONTEXT, WORTHWHILE, Lowres
from .plan import RESIDUAL, IntensityStats
from .presets import MIN_BATCH, Preset

_SCHEMES = {
    "CTNormalization": "intensities mean the same in every CT, so they are clipped to {low:.4g} … {high:.4g} "
    "(0.5 to 99.5 % of the labelled voxels), then {mean:.4g} is subtracted and divided by {std:.4g}",
    "ZScoreNormalization": "intensities of this kind differ between scanners, so each image gets mean 0 and "
    "standard deviation 1 by itself",
    "NoNormalization": "the channel's name asks for intensities as they are",
    "RescaleTo01Normalization": "the channel's name asks for each image's intensities rescaled to 0 … 1",
    "RGBTo01Normalization": "the channel's name asks for colours 0 … 255 divided by 255",
}


def preset_reason(preset: Preset) -> str:
    """Which kind of network, for which machine."""
    kind = "residual-encoder U-Nets" if preset.network == RESIDUAL else "U-Nets"
    return f"Preset {preset.name}: {kind} starting with {preset.base_features} features, sized for {_room(preset)}."


def transpose_reason(grid: Grid) -> str:
    """Why the axes are ordered so."""
    axis, (coarse, *others) = grid.transpose_forward[0], grid.spacing_mm
    if grid.is_plane:
        return f"File axis {axis} holds a single plane and comes first."
    if coarse == max(others):
        return f"No file axis is coarser than axis {axis} ({_mm([coarse])}), which comes first."
    moved = "stays" if axis == 0 else "becomes"
    return f"File axis {axis} is the coarsest ({_mm([coarse])}, the others {_mm(others)}) and {moved} the first axis."


def spacing_reason(grid: Grid) -> str:
    """Why images are resampled to this voxel size."""
    if is_of_pictures(grid.spacing_mm) and is_of_pictures(grid.original_spacing_mm):
        return "Pictures have no voxel size, so their pixels are used as they are."
    shown, median = (v[1:] if grid.is_plane else v for v in (grid.spacing_mm, grid.original_spacing_mm))
    target = f"Images are resampled to {_mm(shown)} ({'y, x' if grid.is_plane else 'z, y, x'})"
    if grid.rule == GIVEN:
        return f"{target} because this was asked for; the median of the {grid.n_cases} cases is {_mm(median)}."
    if grid.rule == COARSE and not grid.is_plane:
        return (
            f"{target}: slices are few and far apart (median {_mm(median[:1])}), so their distance is one that only "
            f"a tenth of the {grid.n_cases} cases undercut, in order not to merge the thin slices of the better ones."
        )
    return f"{target}, the median of the {grid.n_cases} cases."


def normalization_reason(names: Sequence[str], schemes: Sequence[str], intensities: Sequence[IntensityStats]) -> str:
    """Why the intensities of each channel are scaled so."""
    parts = [
        f"{name}: "
        + _SCHEMES[scheme].format(low=stats.percentile_00_5, high=stats.percentile_99_5, mean=stats.mean, std=stats.std)
        for name, scheme, stats in zip(names, schemes, intensities, strict=True)
    ]
    return "; ".join(parts) + "."


def mask_reason(relative_size: float, used: bool, limit: float) -> str:
    """Why intensities are measured inside the non-zero part only, or everywhere."""
    removed = f"Cropping away empty (zero) borders leaves {relative_size:.0%} of the median image"
    if used:
        return f"{removed}, less than {limit:.0%}: mean and deviation are taken from the non-zero part only."
    if relative_size < limit:
        return f"{removed}, but no channel is normalised in a way that needs a mask: all voxels are used."
    return f"{removed}: mean and deviation are taken from the whole image."


def patch_reason(fit: Fit, median_shape: Sequence[float], preset: Preset) -> str:
    """Why a patch has this size."""
    median = f"the median case of {_voxels(median_shape)} voxels"
    if not fit.shrank:
        return f"One patch of {_voxels(fit.patch_size)} covers {median}, as far as whole halvings and memory allow."
    share = [min(p / m, 1) for p, m in zip(fit.patch_size, median_shape, strict=True)]
    return (
        f"Shrunk from {_voxels(fit.first_patch)} to {_voxels(fit.patch_size)} until {_limit(fit, preset)}; "
        f"a patch sees {' × '.join(f'{s:.0%}' for s in share)} of {median}."
    )


def batch_reason(fit: Fit, preset: Preset) -> str:
    """Why a batch has this many patches."""
    memory = f"{_room(preset)} holds {counted(fit.batch_by_memory, 'patch', 'es')}"
    data = f"{preset.data_share:.0%} of the data set's voxels"
    by_data = (
        f"{data} make {counted(fit.batch_by_data, 'patch', 'es')}"
        if fit.batch_by_data
        else f"a patch is more than {data}"
    )
    if fit.batch_size == MIN_BATCH >= min(fit.batch_by_memory, fit.batch_by_data):
        return f"{MIN_BATCH} is the smallest batch that is used ({memory}, {by_data})."
    if fit.batch_size == fit.batch_by_memory:
        return f"{memory} ({by_data}, which is no limit here)."
    if fit.batch_size == fit.batch_by_data:
        return f"{by_data}, and a batch should hold no more ({memory})."
    return f"Preset {preset.name} stops at {fit.batch_size} to keep steps quick ({memory}, {by_data})."


def network_reason(fit: Fit) -> str:
    """Why the network has these stages."""
    network = fit.network
    halvings = [sum(stride[axis] == 2 for stride in network.strides) for axis in range(network.dimensions)]
    flat = sum(1 in kernel for kernel in network.kernel_sizes)
    stages = "stage works" if flat == 1 else f"{flat} stages work"
    plain = f"; the first {stages} within slices only, because these are far apart" if flat else ""
    return (
        f"{network.n_stages} stages with {network.features[0]} to {network.features[-1]} features: the axes are halved "
        f"{_voxels(halvings)} times, finer axes first, down to no less than 4 voxels{plain}; one patch makes about "
        f"{fit.values / 1e6:{'.1f' if fit.values < 1e7 else '.0f'}} million feature values."
    )


def lowres_reason(lowres: Lowres) -> str:
    """Why there is, or is no, configuration at lower resolution."""
    covered = f"A full-resolution patch covers {min(lowres.covered, 1):.0%} of the median case"
    if not lowres.needed:
        return f"{covered}, at least {ENOUGH_CONTEXT:.0%}: no low-resolution stage is needed."
    if not lowres.worthwhile:
        return (
            f"{covered}, but the low resolution that would give more context has only {lowres.reduction:.1f} times fewer "
            f"voxels (at least {WORTHWHILE} are worth it): no low-resolution stage."
        )
    return (
        f"{covered}, less than {ENOUGH_CONTEXT:.0%}: a stage at {_mm(lowres.spacing_mm)} with {lowres.reduction:.1f} times "
        "fewer voxels sees the surroundings."
    )


def too_small_reason(fit: Fit, preset: Preset) -> str:
    """Why no network is planned: for want of memory, or of voxels."""
    if fit.shrank:
        return f"{_room(preset)} cannot hold the smallest patch that a network works on; plan for more, or without a limit."
    return TOO_SMALL


CASCADE = "A second network at full resolution refines what 3d_lowres found, with its segmentation as additional input."
PLANE_2D = "The images are single planes: only 2d applies."
TOO_SMALL = "The images are too small to be halved even once; a patch needs an axis of at least 12 voxels or two of 8."
PLANE = "Single slices are always worth comparing: quick to train, and often better when slices are far apart."
FULL = "The images are volumes, so a 3-D network at full resolution is planned."


def _limit(fit: Fit, preset: Preset) -> str:
    dimensions = len(fit.patch_size)
    if preset.max_patch_voxels(dimensions) < float("inf"):
        return f"it holds at most {preset.max_patch_voxels(dimensions):.0f} voxels (preset {preset.name})"
    return f"a batch of {preset.reference_batch(dimensions) if preset.network == RESIDUAL else MIN_BATCH} fits {_room(preset)}"


def _room(preset: Preset) -> str:
    return f"{preset.memory_gb:g} GB of graphics memory" if preset.for_gpu else f"{preset.memory_gb:g} GB of memory"


def _mm(values: Sequence[float]) -> str:
    return " × ".join(f"{value:.4g}" for value in values) + " mm"


def _voxels(values: Sequence[float]) -> str:
    return " × ".join(f"{value:g}" for value in values)
