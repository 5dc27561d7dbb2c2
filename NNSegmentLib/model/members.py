"""What a model consists of: configurations, their trained folds, and the records that describe them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import ModelError
from ..folders import visible
from ..given import is_digits
from ..image import READERS
from ..labels import LabelSet
from ..planning.architecture import require_sound_network
from ..planning.plan import Configuration, Plan

LONGEST_TRAINER = 200
"""Letters in a trainer's name; nnU-Net's longest has 60."""


@dataclass(frozen=True)
class Member:
    """One trained network: a fold of a configuration."""

    configuration: str
    fold: int | str
    checkpoint: Path


@dataclass(frozen=True)
class TrainedConfiguration:
    """A model folder: one configuration with the folds that are trained."""

    folder: Path
    plan: Plan
    configuration: Configuration
    members: tuple[Member, ...]
    previous: TrainedConfiguration | None = None
    """Cascade: the configuration whose label map is an additional input; None when its folder is not there."""
    mirroring_axes: tuple[int, ...] = ()
    """Patch axes that prediction may mirror; only for version 1, whose checkpoints do not tell."""
    lacking: tuple[str, ...] = ()
    """Cascade: folds that were asked for and that the earlier stage has not trained."""

    @property
    def plan_file(self) -> Path:
        """The file that the plan was read from."""
        return self.folder / ("plans.pkl" if self.configuration.is_version_1 else "plans.json")


@dataclass(frozen=True)
class Model:
    """What predicts: one trained configuration, or an ensemble whose probabilities are averaged."""

    folder: Path
    parts: tuple[TrainedConfiguration, ...]
    label_set: LabelSet
    channels: tuple[str, ...]
    """Names of the input images, in their order."""
    file_ending: str
    postprocessing: Path | None = None
    """postprocessing.json (or .pkl) that was chosen together with the model."""

    @property
    def plan(self) -> Plan:
        return self.parts[0].plan

    @property
    def members(self) -> tuple[Member, ...]:
        return tuple(member for part in self.parts for member in part.members)

    @property
    def configurations(self) -> tuple[str, ...]:
        return tuple(part.configuration.name for part in self.parts)


def require_sound(plan: Plan, chosen: Configuration, file: Path) -> None:
    """Raises ModelError or PlanError for values that no planner writes, before anything is computed with them."""
    names, stage = [c.name for c in plan.configurations], chosen.previous_stage
    resamplings = (chosen.resampling_data, chosen.resampling_labels, chosen.resampling_probabilities)
    orders = [order for r in resamplings for order in (r.order, r.order_z)]
    checks = (
        ("transpose_forward", plan.transpose_forward, sorted(plan.transpose_forward) == [0, 1, 2]),
        ("spacing", chosen.spacing_mm, len(chosen.spacing_mm) == len(chosen.patch_size)),
        ("spacing", chosen.spacing_mm, all(1e-6 < s < 1e6 for s in chosen.spacing_mm)),
        ("the order of resampling", orders, all(type(order) is int and 0 <= order <= 5 for order in orders)),
        ("normalization_schemes", chosen.normalization, all(isinstance(n, str) for n in chosen.normalization)),
        ("image_reader_writer", plan.reader, plan.reader in READERS),
        ("previous_stage", stage, not stage or (stage in names and not plan.configuration(stage).previous_stage)),
    )
    for name, value, is_sound in checks:
        if not is_sound:
            raise ModelError(f"{file}: {name} of {chosen.name} cannot be {value!r}; copy the model again.")
    require_sound_network(chosen.network, chosen.patch_size, f"The network described in {file}")


def members_of(
    folder: Path, configuration: str, folds: Sequence[int | str] | None, names: Sequence[str]
) -> tuple[Member, ...]:
    """The trained folds of a model folder, or those wanted, each with the first of the checkpoints `names` it has.

    Raises ModelError naming the fold that has none.
    """
    present = fold_folders(folder)
    wanted = [str(f) for f in folds] if folds else None
    if wanted is None:
        wanted, names = _trained_folds(present, names)
    members = []
    for fold in wanted:
        file = next((present[fold] / n for n in names if fold in present and (present[fold] / n).is_file()), None)
        if file is None:
            trained = [f for f, path in present.items() if any((path / name).is_file() for name in names)]
            raise ModelError(
                f"{folder.name} has no {' or '.join(names)} for fold {fold}; "
                f"it has the folds {', '.join(trained) or 'none'}; train the fold or choose others."
            )
        members.append(Member(configuration, int(fold) if is_digits(fold) else fold, file))
    if not members:
        raise ModelError(f"{folder} has no trained fold: expected fold_X/{names[0]}, found none; train it first.")
    return tuple(members)


def earlier_folds(
    folder: Path, folds: Sequence[int | str] | None, names: Sequence[str]
) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
    """Which folds of a cascade's earlier stage, in its model folder, go with those asked for, and which of these it lacks.

    The same ones, since every other has seen the cases that they leave out; None, all, where no numbered fold is asked
    for.
    """
    asked = [str(fold) for fold in folds or ()]
    trained = [f for f, path in fold_folders(folder).items() if any((path / name).is_file() for name in names)]
    same = tuple(fold for fold in asked if fold in trained)
    return same or None, tuple(fold for fold in asked if fold not in (*trained, "all"))


def _trained_folds(present: dict[str, Path], names: Sequence[str]) -> tuple[list[str], list[str]]:
    """All folds with the most finished kind of checkpoint that any has; 'all' only when it is alone."""
    for name in names:
        done = [fold for fold, folder in present.items() if (folder / name).is_file()]
        numbered = [fold for fold in done if fold != "all"]
        if done:
            return numbered or done, [name]
    return [], list(names)


def fold_folders(folder: Path) -> dict[str, Path]:
    """Fold → its folder: fold_0, fold_1, …, and fold_all, in version 1 all."""
    found = [path for path in (*visible(folder, "fold_*"), folder / "all") if path.is_dir()]
    return {path.name.removeprefix("fold_"): path for path in sorted(found, key=_fold_order)}


def _fold_order(folder: Path) -> tuple[int, str]:
    name = folder.name.removeprefix("fold_")
    return (int(name), "") if is_digits(name) else (10**6, name)
