"""nnU-Net v1's plans.pkl as a plan of ours: what it calls things, and the Generic_UNet it describes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import ModelError
from ..pickled_values import REFUSED, PickledArray, read_pickle
from ..planning.plan import PLAIN, Configuration, IntensityStats, NetworkSpec, Plan
from ..preprocessing.normalize import CASE_CT, UNCHANGED
from ..records import kind_of, lack_of

LARGEST_FILE = 1 << 28
"""Bytes; plans list every training case, which is far less."""
_SCHEMES = {"CT": "CTNormalization", "CT2": CASE_CT, "noNorm": UNCHANGED}
_OTHER_SCHEME = "ZScoreNormalization"
_MOST_FEATURES = {2: 480, 3: 320}
"""Generic_UNet's constants, by the number of dimensions."""
_MOST_POOLINGS = 15
_LONGEST_TEXT = 200


@dataclass(frozen=True)
class V1Plan:
    """What plans.pkl says."""

    plan: Plan
    """A configuration for each stage, in the order of `stages`."""
    stages: tuple[int, ...]
    channels: tuple[str, ...]
    foreground: tuple[int, ...]
    """Label values without the background."""

    def configuration_of(self, stage: int | None, file: Path) -> Configuration:
        """The configuration of a stage; None stands for the only one. Raises ModelError for a stage it lacks."""
        if stage is None and len(self.stages) == 1:
            return self.plan.configurations[0]
        if stage not in self.stages:
            raise ModelError(
                f"{file} plans the stages {self.stages}, the model was trained for another; copy it again."
            )
        return self.plan.configurations[self.stages.index(stage)]


def read_v1_plan(path: Path, task: str, name: str, is_cascade: bool) -> V1Plan:
    """Read plans.pkl of a model folder without running anything in it.

    `is_cascade` tells whether the last stage was trained on the first one's labels, which the file does not say.
    Raises ModelError when it is damaged, hostile, or describes what Generic_UNet cannot be.
    """
    values = read_pickle(path, LARGEST_FILE)
    try:
        return _plan(values, task, name, is_cascade)
    except REFUSED as wrong:
        raise ModelError(f"{path} is no plans file of nnU-Net v1: {lack_of(wrong)}; copy the model again.") from wrong


def _plan(values: Mapping, task: str, name: str, is_cascade: bool) -> V1Plan:
    of_stages = _mapping(values["plans_per_stage"])
    stages = tuple(sorted(_whole(stage) for stage in of_stages))
    names = _names(len(stages), len(values_of(of_stages[stages[0]]["patch_size"])) == 2, is_cascade)
    modalities = _mapping(values["modalities"])
    forward = values.get("transpose_forward")
    plan = Plan(
        dataset_name=task,
        name=name,
        transpose_forward=(0, 1, 2) if forward is None else _wholes(forward),
        configurations=tuple(
            _configuration(n, values, of_stages[stage]) for n, stage in zip(names, stages, strict=True)
        ),
        intensities=_intensities(values, len(modalities)),
        planner="nnU-Net v1",
    )
    channels = tuple(_text(modalities[key]) for key in sorted(modalities))
    return V1Plan(plan, stages, channels, _wholes(values["all_classes"]))


def _names(n_stages: int, is_2d: bool, is_cascade: bool) -> tuple[str, ...]:
    """The configurations that the stages were trained as."""
    full = "3d_cascade_fullres" if is_cascade else "3d_fullres"
    names = {1: ("2d" if is_2d else "3d_fullres",), 2: ("3d_lowres", full)}.get(n_stages)
    if names is None or (is_cascade and n_stages == 1) or (is_2d and n_stages > 1):
        raise ValueError("it plans other stages than one, or low and full resolution")
    return names


def _configuration(name: str, values: Mapping, stage: Mapping) -> Configuration:
    n_channels = len(_mapping(values["modalities"]))
    patch = _wholes(stage["patch_size"])
    schemes, masks = _mapping(values["normalization_schemes"]), _mapping(values["use_mask_for_norm"])
    return Configuration(
        name=name,
        data_identifier=_text(values.get("data_identifier", "")),
        batch_size=_whole(stage["batch_size"]),
        patch_size=patch,
        median_shape=_numbers(stage["median_patient_size_in_voxels"]),
        spacing_mm=_numbers(stage["current_spacing"])[-len(patch) :],
        normalization=tuple(_SCHEMES.get(schemes[c], _OTHER_SCHEME) for c in range(n_channels)),
        use_mask_for_norm=tuple(bool(masks[c]) for c in range(n_channels)),
        network=_network(values, stage, len(patch)),
        batch_dice=False,
        previous_stage="3d_lowres" if name == "3d_cascade_fullres" else "",
        is_version_1=True,
    )


def _network(values: Mapping, stage: Mapping, dimensions: int) -> NetworkSpec:
    """Generic_UNet: a decoder stage has the kernel of the encoder stage below it."""
    strides, kernels = _strides(stage), _kernels(stage)
    n = len(strides) + 1
    fits = len(kernels) == n and all(len(of_axes) == dimensions for of_axes in (*strides, *kernels))
    if dimensions not in _MOST_FEATURES or not fits or not 2 <= n <= _MOST_POOLINGS + 1:
        raise ValueError("the poolings and kernels of its network do not fit each other")
    if any(size not in (1, 3) for kernel in kernels for size in kernel):
        raise ValueError("its network has kernels other than 1 and 3")
    convs = _whole(values.get("conv_per_stage", 2))
    if convs < 2:
        raise ValueError("its network has fewer than two convolutions a stage")
    base, most = _whole(values["base_num_features"]), _MOST_FEATURES[dimensions]
    below = kernels[1:]
    return NetworkSpec(
        kind=PLAIN,
        features=tuple(min(base * 2**i, most) for i in range(n)),
        kernel_sizes=kernels,
        strides=((1,) * dimensions, *strides),
        blocks=(convs,) * n,
        decoder_convs=(convs,) * (n - 1),
        decoder_kernel_sizes=below if below != kernels[:-1] else (),
    )


def _strides(stage: Mapping) -> tuple[tuple[int, ...], ...]:
    """What each pooling divides by; the oldest plans tell only how often each axis is pooled: as late as possible."""
    if "pool_op_kernel_sizes" in stage:
        return tuple(_wholes(of_axes) for of_axes in values_of(stage["pool_op_kernel_sizes"]))
    times = _wholes(stage["num_pool_per_axis"])
    n = min(max(times), _MOST_POOLINGS + 1)
    return tuple(tuple(2 if i >= n - of_axis else 1 for of_axis in times) for i in range(n))


def _kernels(stage: Mapping) -> tuple[tuple[int, ...], ...]:
    if "conv_kernel_sizes" in stage:
        return tuple(_wholes(of_axes) for of_axes in values_of(stage["conv_kernel_sizes"]))
    strides = _strides(stage)
    return ((3,) * len(strides[0]),) * (len(strides) + 1)


def _intensities(values: Mapping, n_channels: int) -> tuple[IntensityStats, ...]:
    """Nothing for data sets without CT."""
    of_channels = _mapping(values["dataset_properties"]).get("intensityproperties")
    if of_channels is None:
        return ()
    return tuple(_stats(_mapping(_mapping(of_channels)[c])) for c in range(n_channels))


def _stats(values: Mapping) -> IntensityStats:
    return IntensityStats(
        mean=_number(values["mean"]),
        std=_number(values["sd"]),
        min=_number(values["mn"]),
        max=_number(values["mx"]),
        median=_number(values["median"]),
        percentile_00_5=_number(values["percentile_00_5"]),
        percentile_99_5=_number(values["percentile_99_5"]),
    )


def values_of(value: object) -> list:
    """The items of a list, a tuple or an array in a pickle; raises ValueError for anything else."""
    if not isinstance(value, (list, tuple, PickledArray)):
        raise ValueError(f"a list was expected where it has {kind_of(value)}")
    return list(value)


def _mapping(value: object) -> Mapping:
    if not isinstance(value, dict):
        raise ValueError(f"a dictionary was expected where it has {kind_of(value)}")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > _LONGEST_TEXT:
        raise ValueError(f"a name was expected where it has {kind_of(value)}")
    return value


def _wholes(value: object) -> tuple[int, ...]:
    return tuple(_whole(item) for item in values_of(value))


def _numbers(value: object) -> tuple[float, ...]:
    return tuple(_number(item) for item in values_of(value))


def _whole(value: object) -> int:
    if _number(value) != int(value):
        raise ValueError("whole numbers were expected where it has fractions")
    return int(value)


def _number(value: object) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):
        found = value if isinstance(value, float) else kind_of(value)
        raise ValueError(f"numbers were expected where it has {found}")
    return float(value)
