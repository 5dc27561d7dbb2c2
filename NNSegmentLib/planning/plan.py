"""The records of a plan, and nnU-Net v2's plans file."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..errors import PlanError, SettingsError, StorageError
from ..folders import visible
from ..given import path_of
from ..grids.planes import is_of_pictures
from ..records import cannot_write, from_json, move, read_json, write_json
from .architecture import PLAIN, RESIDUAL, NetworkSpec, network_from_json, network_to_json
from .soundness import (
    no_plan,
    require_configuration_entries,
    require_fitting_network,
    require_mapping,
    require_plan_entries,
    require_sound_entries,
    unreadable,
)

__all__ = [
    "CONFIGURATIONS", "PLAIN", "RESIDUAL", "Configuration", "IntensityStats", "NetworkSpec", "Plan", "Resampling",
    "load_plan", "plan_from_json", "plan_to_json", "plans_files", "reasons_path", "require_plans_name",
    "resolve_inheritance", "save_plan", "set_plan_aside", "with_configurations",
]  # fmt: skip

CONFIGURATIONS = ("2d", "3d_fullres", "3d_lowres", "3d_cascade_fullres")
_RESAMPLING = "resample_data_or_seg_to_shape"
_UNREADABLE = (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError)
_NAMED_WITHIN = 2000
"""Bytes from the beginning of a plans file that tell its name."""
_PLANS_NAME = re.compile(r"(?!.*__)[\w-][\w.-]*")
"""Two '_' part the names in a model folder's name."""
_OTHER_FILES = ("dataset", "dataset_fingerprint", "splits_final")
"""What lies beside the plans."""
_SMALLEST_BATCH = 2
"""Of plans that were stripped to what prediction needs."""


@dataclass(frozen=True)
class Resampling:
    """How arrays reach another grid: spline order in plane and along z, and nnU-Net's `force_separate_z`."""

    order: int
    order_z: int = 0
    force_separate_z: bool | None = None
    function: str = _RESAMPLING


@dataclass(frozen=True)
class Configuration:
    """One way to train: grid, patch, batch, normalisation and network. Axes are the transposed (z, y, x)."""

    name: str
    data_identifier: str
    batch_size: int
    patch_size: tuple[int, ...]
    """Voxels along (z, y, x), or (y, x) for 2d."""
    median_shape: tuple[float, ...]
    """Median size of the cases at `spacing_mm`."""
    spacing_mm: tuple[float, ...]
    """Voxel size along (z, y, x), or (y, x) for 2d."""
    normalization: tuple[str, ...]
    """Scheme of each channel by nnU-Net's class name, e.g. 'ZScoreNormalization'."""
    use_mask_for_norm: tuple[bool, ...]
    network: NetworkSpec
    batch_dice: bool
    resampling_data: Resampling = Resampling(order=3)
    resampling_labels: Resampling = Resampling(order=1)
    resampling_probabilities: Resampling = Resampling(order=1)
    previous_stage: str = ""
    """Cascade: the configuration whose segmentation is an additional input."""
    next_stage: str = ""
    inherits_from: str = ""
    is_version_1: bool = False
    """nnU-Net v1's rules: normalise after resampling; average probabilities, not logits, and resample them."""

    @property
    def is_2d(self) -> bool:
        return len(self.patch_size) == 2

    def n_inputs(self, n_channels: int, n_foreground: int) -> int:
        """Input channels of the network: the image's, and in a cascade one per foreground value."""
        return n_channels + (n_foreground if self.previous_stage else 0)

    def target_spacing_mm(self, case_spacing_mm: tuple[float, float, float]) -> tuple[float, float, float]:
        """Spacing (z, y, x) to resample a case of transposed spacing to; 2d keeps the slice distance."""
        return (case_spacing_mm[0], *self.spacing_mm) if self.is_2d else tuple(self.spacing_mm)


@dataclass(frozen=True)
class IntensityStats:
    """Foreground intensities of one channel over the data set."""

    mean: float
    std: float
    min: float
    max: float
    median: float
    percentile_00_5: float
    percentile_99_5: float


@dataclass(frozen=True)
class Plan:
    """What nnU-Net would do with a task: axis order, intensity statistics and the configurations."""

    dataset_name: str
    name: str
    """Name of the plans file without ending, e.g. 'nnUNetPlans'."""
    transpose_forward: tuple[int, int, int]
    """File axis that becomes axis 0, 1, 2."""
    configurations: tuple[Configuration, ...]
    intensities: tuple[IntensityStats, ...]
    """One per channel."""
    original_median_spacing_mm: tuple[float, ...] = ()
    """Median voxel size of the cases as they are, in the transposed order (z, y, x)."""
    original_median_shape: tuple[int, ...] = ()
    """Median voxels of the cases, cropped to their non-zero part, in the transposed order (z, y, x)."""
    reader: str = "SimpleITKIO"
    planner: str = "ExperimentPlanner"
    unsupported: Mapping[str, str] = field(default_factory=dict)
    """Configuration → one sentence why it cannot be used here."""
    reasons: Mapping[str, str] = field(default_factory=dict)
    """Decision → one sentence why; kept beside the plans file, which stays exactly nnU-Net's."""

    @property
    def is_of_pictures(self) -> bool:
        """Whether it was made of pictures, whose voxel sizes are no mm."""
        return is_of_pictures(self.original_median_spacing_mm)

    @property
    def transpose_backward(self) -> tuple[int, int, int]:
        return tuple(self.transpose_forward.index(axis) for axis in range(3))

    def configuration(self, name: str) -> Configuration:
        """The configuration of this name; raises PlanError listing those the plan has."""
        for configuration in self.configurations:
            if configuration.name == name:
                return configuration
        if isinstance(name, str) and name in self.unsupported:
            raise PlanError(self.unsupported[name])
        known = ", ".join(c.name for c in self.configurations)
        raise PlanError(
            f"The plan {self.name} of {self.dataset_name} has no configuration {name}; it has {known}; choose one of these."
        )


def load_plan(path: Path | str) -> Plan:
    """Read a plans file of nnU-Net v2 (2.0 to 2.8) or ours; raises PlanError."""
    path = path_of(path)
    plan = plan_from_json(read_json(path, PlanError), str(path))
    return replace(plan, reasons=_reasons(reasons_path(path))) if reasons_path(path).is_file() else plan


def _reasons(path: Path) -> Mapping[str, str]:
    values = read_json(path, PlanError)
    if not isinstance(values, Mapping) or not all(isinstance(why, str) for why in values.values()):
        raise PlanError(
            f"{path} should give a sentence for every decision, found {values!r:.60}; mend it or delete it."
        )
    return values


def plans_files(folder: Path) -> list[Path]:
    """The plans files of a task's preprocessed folder, damaged ones too.

    They are told from its other JSON files by what they begin with, by nnU-Net's names, or by the reasons beside them.
    """
    return [path for path in visible(folder, "*.json") if _is_plans_file(path)]


def _is_plans_file(path: Path) -> bool:
    return path.stem.endswith("Plans") or reasons_path(path).is_file() or b'"plans_name"' in _beginning(path)


def _beginning(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_NAMED_WITHIN)


def save_plan(plan: Plan, path: Path) -> None:
    """Write nnU-Net v2's plans file, and the reasons beside it."""
    write_json(path, plan_to_json(plan))
    if plan.reasons:
        write_json(reasons_path(Path(path)), dict(plan.reasons))


def set_plan_aside(path: Path) -> Path:
    """Rename a damaged plans file to NAME.json.damaged, so that a new one can take its place; raises StorageError."""
    names = (f"{path.name}.damaged{n}" for n in ("", *range(2, 10**6)))
    kept = next(path.with_name(name) for name in names if not path.with_name(name).exists())
    try:
        move(path, kept)
    except OSError as error:
        raise StorageError(cannot_write(kept, error)) from error
    return kept


def require_plans_name(name: str) -> None:
    """Raises SettingsError for a plans name that cannot be part of a file name within the task's folders."""
    if not isinstance(name, str) or not _PLANS_NAME.fullmatch(name) or name in _OTHER_FILES:
        raise SettingsError(
            "A plans name should consist of letters, digits, single '_', '-' and '.', not begin with '.' and be no other "
            f"file's of the task, found {name!r:.60}; choose a name such as 'myPlans'."
        )


def reasons_path(plans_path: Path) -> Path:
    """Where the reasons of a plans file are kept."""
    return plans_path.with_name(plans_path.stem + ".reasons")


def plan_from_json(values: Mapping, where: str = "the plans file") -> Plan:
    """A plan from parsed JSON; raises PlanError naming what is missing."""
    require_plan_entries(values, where)
    try:
        configurations, unsupported = _configurations(values["configurations"], where)
        intensities = values.get("foreground_intensity_properties_per_channel") or values.get(
            "foreground_intensity_properties_by_modality", {}
        )
        return Plan(
            dataset_name=values["dataset_name"],
            name=values["plans_name"],
            transpose_forward=_ints(values["transpose_forward"]),
            configurations=configurations,
            unsupported=unsupported,
            intensities=tuple(
                from_json(IntensityStats, intensities[key], PlanError) for key in sorted(intensities, key=int)
            ),
            original_median_spacing_mm=tuple(values.get("original_median_spacing_after_transp", ())),
            original_median_shape=_ints(values.get("original_median_shape_after_transp", ())),
            reader=values["image_reader_writer"],
            planner=values.get("experiment_planner_used", ""),
        )
    except _UNREADABLE as wrong:
        raise unreadable(where, "the file", wrong) from wrong


def resolve_inheritance(configurations: Mapping, name: str, where: str = "the plans file") -> dict:
    """A configuration's values with those of its parents filled in, the child's winning; raises PlanError."""
    chain: list[str] = []
    while name:
        if name in chain:
            raise PlanError(no_plan(where, f"configurations inherit in a circle ({' → '.join([*chain, name])})"))
        if name not in configurations:
            raise PlanError(no_plan(where, f"configuration {chain[-1]} inherits from {name}, which is missing"))
        chain.append(name)
        name = configurations[name].get("inherits_from", "")
    merged: dict = {}
    for link in reversed(chain):
        merged |= configurations[link]
    return merged


def plan_to_json(plan: Plan) -> dict:
    """The parsed content of nnU-Net v2's plans file, keys in nnU-Net's order.

    A configuration that inherits holds only what differs from its parent, or everything when the plan lacks the parent.
    """
    by_name = {c.name: c for c in plan.configurations}
    return {
        "dataset_name": plan.dataset_name,
        "plans_name": plan.name,
        "original_median_spacing_after_transp": list(plan.original_median_spacing_mm),
        "original_median_shape_after_transp": list(plan.original_median_shape),
        "image_reader_writer": plan.reader,
        "transpose_forward": list(plan.transpose_forward),
        "transpose_backward": list(plan.transpose_backward),
        "configurations": {
            c.name: _configuration_to_json(c, by_name.get(c.inherits_from)) for c in plan.configurations
        },
        "experiment_planner_used": plan.planner,
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {
            str(i): {
                key: getattr(stats, key)
                for key in ("max", "mean", "median", "min", "percentile_00_5", "percentile_99_5", "std")
            }
            for i, stats in enumerate(plan.intensities)
        },
    }


def with_configurations(plan: Plan, other: Plan, names: Collection[str], where: str = "the plans file") -> Plan:
    """The plan with these configurations of another; what they inherit is the plan's own where it has the parent.

    Raises PlanError for one that does not fit what it inherits; `where` says in which file it is to be corrected.
    """
    known = {*names, *(c.name for c in plan.configurations)}
    own = plan_to_json(replace(other, configurations=tuple(c for c in other.configurations if c.name in known)))
    values = plan_to_json(plan)
    values["configurations"] |= {name: own["configurations"][name] for name in names}
    read = plan_from_json(values, where)
    for name in names:
        read.configuration(name)  # raises: it would be lost if what it inherits now does not fit it
    return replace(plan, configurations=read.configurations)


def _configurations(values: Mapping, where: str) -> tuple[tuple[Configuration, ...], dict[str, str]]:
    """What can be used, and why the others cannot: one that is damaged or of another network spoils none beside it."""
    usable, unsupported = [], {}
    for name, own in values.items():
        require_mapping(own, where, f"the configuration {name}")
    for name, own in values.items():
        merged = resolve_inheritance(values, name, where)
        require_configuration_entries(merged, name, where)
        try:
            require_sound_entries(merged, name, where)
            made = _configuration(name, merged, own)
            require_fitting_network(made.network, made.patch_size, name, where)
            usable.append(made)
        except PlanError as refused:
            unsupported[name] = str(refused)
        except _UNREADABLE as wrong:
            raise unreadable(where, f"the configuration {name}", wrong) from wrong
    return tuple(usable), unsupported


def _configuration(name: str, values: Mapping, own: Mapping) -> Configuration:
    return Configuration(
        name=name,
        data_identifier=values.get("data_identifier", ""),
        batch_size=int(values.get("batch_size", _SMALLEST_BATCH)),
        patch_size=_ints(values["patch_size"]),
        median_shape=tuple(values.get("median_image_size_in_voxels", values["patch_size"])),
        spacing_mm=tuple(float(s) for s in values["spacing"]),
        normalization=tuple(values["normalization_schemes"]),
        use_mask_for_norm=tuple(bool(m) for m in values["use_mask_for_norm"]),
        network=network_from_json(values, len(values["patch_size"])),
        batch_dice=bool(values.get("batch_dice", False)),
        resampling_data=_resampling(values, "data", 3),
        resampling_labels=_resampling(values, "seg", 1),
        resampling_probabilities=_resampling(values, "probabilities", 1),
        previous_stage=values.get("previous_stage") or "",
        next_stage=own.get("next_stage") or "",
        inherits_from=own.get("inherits_from") or "",
    )


def _resampling(values: Mapping, what: str, order: int) -> Resampling:
    kwargs = values.get(f"resampling_fn_{what}_kwargs", {})
    return Resampling(
        order=kwargs.get("order", order),
        order_z=kwargs.get("order_z", 0),
        force_separate_z=kwargs.get("force_separate_z"),
        function=values.get(f"resampling_fn_{what}", _RESAMPLING),
    )


def _configuration_to_json(c: Configuration, parent: Configuration | None) -> dict:
    if parent is None:
        return _whole_configuration_to_json(c)
    own = {"inherits_from": parent.name}
    if c.previous_stage or parent.previous_stage:
        own["previous_stage"] = c.previous_stage or None  # nnU-Net's word for a child that is no cascade
    if c.next_stage:
        own["next_stage"] = c.next_stage  # read from the configuration itself, never from its parent
    inherited = _whole_configuration_to_json(parent)
    values = _whole_configuration_to_json(c)
    return own | {key: value for key, value in values.items() if key not in own and value != inherited.get(key)}


def _whole_configuration_to_json(c: Configuration) -> dict:
    lists = {
        "data_identifier": c.data_identifier,
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": c.batch_size,
        "patch_size": list(c.patch_size),
        "median_image_size_in_voxels": list(c.median_shape),
        "spacing": list(c.spacing_mm),
        "normalization_schemes": list(c.normalization),
        "use_mask_for_norm": list(c.use_mask_for_norm),
    }
    resampling = {
        "resampling_fn_data": c.resampling_data.function,
        "resampling_fn_seg": c.resampling_labels.function,
        "resampling_fn_data_kwargs": _resampling_to_json(c.resampling_data, is_seg=False),
        "resampling_fn_seg_kwargs": _resampling_to_json(c.resampling_labels, is_seg=True),
        "resampling_fn_probabilities": c.resampling_probabilities.function,
        "resampling_fn_probabilities_kwargs": _resampling_to_json(c.resampling_probabilities, is_seg=False),
    }
    stages = {"next_stage": c.next_stage} if c.next_stage else {}
    stages |= {"previous_stage": c.previous_stage} if c.previous_stage else {}
    return lists | resampling | {"architecture": network_to_json(c.network), "batch_dice": c.batch_dice} | stages


def _resampling_to_json(r: Resampling, is_seg: bool) -> dict:
    return {"is_seg": is_seg, "order": r.order, "order_z": r.order_z, "force_separate_z": r.force_separate_z}


def _ints(values) -> tuple[int, ...]:
    return tuple(int(v) for v in values)
