"""Model folders of nnU-Net v1: nnUNet/CONFIGURATION/TaskXXX_Name/Trainer__Plans with plans.pkl and folds."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import InputError, ModelError
from ..folders import visible
from ..labels import BACKGROUND, Label, LabelSet
from ..pickled_values import read_pickle
from ..planning.plan import CONFIGURATIONS
from ..postprocessing_rules import JSON_FILE
from ..records import kind_of, read_json
from .members import (
    LONGEST_TRAINER,
    Model,
    TrainedConfiguration,
    earlier_folds,
    fold_folders,
    members_of,
    require_sound,
)
from .version_1_plan import LARGEST_FILE, V1Plan, read_v1_plan, values_of

V1_CHECKPOINTS = ("model_final_checkpoint.model", "model_best.model", "model_latest.model")
"""In the order of preference; beside each lies a description of the same name with .pkl added."""
_PLANS, _ENDING = "plans.pkl", ".nii.gz"
_DEPTH = 5
"""Folders searched below the one the user picked: RESULTS_FOLDER / nnUNet / configuration / task / model."""
_VARIANTS = (
    r"DP|DDP|fp32|fp16|O2|\d+epochs?|dummyLoad|noDS|noDeepSupervision|softDeepSupervision|copy[1-4]|fullEvals"
    r"|no_?[mM]irroring|noDataAugmentation|independentScalePerAxis|DA[235]|insaneDA|warmup|cycleAtEnd2?"
    r"|Loss_(CE|Dice|Dice_LR1en3|Dice_lr1en3|DicewithBG|DicewithBG_LR1en3|Dice_squared|DiceCE_noSmooth|TopK10"
    r"|DiceTopK10|CEGDL|MCC|MCCnoBG)|SegLoss_Focal|graduallyTransitionFromCEToDice|ForceBD|ForceSD|lReLU_biasInSegOutput"
    r"|Adam(_nnUNetTrainerlr|_ReduceOnPlateau)?|Ranger_lr\den\d|SGD_(lr1en[13]|ReduceOnPlateau|fixedSchedule2?)"
    r"|momentum(09|095|098|09in2D)|reduceMomentumDuringTraining"
    r"|EducatedGuess[23]?|noConnComp|smallerBinStrel|lowerLR|shorter"
)
_KNOWN_TRAINER = re.compile(
    rf"^nnUNetTrainer(CE|NoDA|NoMirroring|CascadeFullRes|V2(CascadeFullRes|BraTSRegions)?(_({_VARIANTS}))*)?$"
)
_WITHOUT_MIRRORING = re.compile(r"[nN]o_?[mM]irroring|noDataAugmentation|NoDA")
_CASCADE, _REGIONS, _DISTRIBUTED = "CascadeFullRes", "BraTSRegions", "DDP"
_STAGE, _STAGE_DISTRIBUTED = 5, 6
"""Where a trainer's arguments tell the stage: those of distributed trainers have one more before it."""
_BRATS = LabelSet(
    (
        Label(BACKGROUND, (0,)),
        Label("whole tumor", (1, 2, 3)),
        Label("tumor core", (2, 3)),
        Label("enhancing tumor", (3,)),
    ),
    regions_class_order=(1, 2, 3),
)
"""The only regions that version 1 knows; they are written in its trainer, not in the model."""


def is_v1_folder(folder: Path) -> bool:
    """Whether a folder holds plans.pkl and trained folds of nnU-Net v1."""
    return (folder / _PLANS).is_file() and any(
        (fold / name).is_file() for fold in fold_folders(folder).values() for name in V1_CHECKPOINTS
    )


def find_v1_folders(path: Path, depth: int = _DEPTH) -> list[Path]:
    """The version-1 model folders at or below `path`, sorted."""
    return sorted(_v1_folders(path, depth))


def load_v1_model(
    path: Path,
    found: Sequence[Path],
    configuration: str | None,
    folds: Sequence[int | str] | None,
    checkpoint: str,
    postprocess: bool,
) -> Model:
    """The model below `path` that is meant, of the folders `found` there.

    Its post-processing, which version 1 always applies, is part of it. Raises ModelError when several are there and
    none is chosen, for a trainer that is unknown, and for files that are damaged or hostile.
    """
    folder = _only_one(path, found, configuration)
    part, described, trainer = _trained(folder, folds, checkpoint)
    if configuration not in (None, part.configuration.name, folder.name):
        raise ModelError(f"{folder} has no configuration {configuration}; it is a {part.configuration.name}.")
    labels = _BRATS if _REGIONS in trainer else _label_set(folder, described)
    rules = folder / JSON_FILE
    found_rules = rules if postprocess and rules.is_file() else None
    return Model(folder, (part,), labels, described.channels, _ENDING, found_rules)


@dataclass(frozen=True)
class _Description:
    """What the .model.pkl beside a checkpoint tells."""

    trainer: str
    stage: int | None


def _trained(
    folder: Path, folds: Sequence[int | str] | None, checkpoint: str
) -> tuple[TrainedConfiguration, V1Plan, str]:
    """A folder's configuration, with the first stage of a cascade from the folder where version 1 puts it."""
    members = members_of(folder, "", folds, [checkpoint] if checkpoint else V1_CHECKPOINTS)
    about = _description(members[0].checkpoint)
    is_cascade = _CASCADE in about.trainer
    described = read_v1_plan(folder / _PLANS, folder.parent.name, folder.name.split("__")[-1], is_cascade)
    chosen = described.configuration_of(about.stage, folder / _PLANS)
    if is_cascade and not chosen.previous_stage:
        raise ModelError(f"{folder} was trained as a cascade, but on stage {about.stage} of its plans; copy it again.")
    require_sound(described.plan, chosen, folder / _PLANS)
    previous = _previous_folder(folder) if chosen.previous_stage else None
    mirrored = () if _WITHOUT_MIRRORING.search(about.trainer) else tuple(range(len(chosen.patch_size)))
    same, lacking = earlier_folds(previous, folds, V1_CHECKPOINTS) if previous else (None, ())
    part = TrainedConfiguration(
        folder,
        described.plan,
        chosen,
        tuple(replace(member, configuration=chosen.name) for member in members),
        _trained(previous, same, "")[0] if previous else None,
        mirrored,
        lacking,
    )
    return part, described, about.trainer


def _description(checkpoint: Path) -> _Description:
    path = checkpoint.with_name(checkpoint.name + ".pkl")
    values = read_pickle(path, LARGEST_FILE)
    if not isinstance(values, dict) or not isinstance(values.get("name"), str):
        raise ModelError(f"{path} does not tell the trainer, as descriptions of nnU-Net v1 do; copy the model again.")
    trainer = values["name"]
    if len(trainer) > LONGEST_TRAINER or not _KNOWN_TRAINER.match(trainer):
        raise ModelError(
            f"{checkpoint} was trained by {trainer[:60]!r}, whose network is not known here; supported are version 1's "
            "nnUNetTrainer and nnUNetTrainerV2 with the variants that keep its network (loss, schedule, augmentation)."
        )
    try:
        stage = values_of(values["init"])[_STAGE_DISTRIBUTED if _DISTRIBUTED in trainer else _STAGE]
    except (KeyError, IndexError, ValueError) as wrong:
        raise ModelError(f"{path} does not tell the stage of its plans; copy the model again.") from wrong
    if stage is not None and type(stage) is not int:
        raise ModelError(
            f"{path} should tell the stage as a whole number, found {kind_of(stage)}; copy the model again."
        )
    return _Description(trainer, stage)


def _label_set(folder: Path, described: V1Plan) -> LabelSet:
    """The names of a dataset.json that lies in the model's or the task's folder, else numbers: plans.pkl has no names."""
    from ..formats.source import value_to_name  # readers of every system come along, which newer models do not need

    for place in (folder, folder.parent):
        try:
            named = value_to_name(read_json(place / "dataset.json")["labels"], place)
        except (InputError, KeyError, TypeError):
            continue
        if named.foreground_values == described.foreground and not named.has_regions:
            return named
    labels = {BACKGROUND: 0} | {f"label {value}": value for value in described.foreground}
    return LabelSet.from_dataset_json({"labels": labels})


def _only_one(path: Path, found: Sequence[Path], wanted: str | None) -> Path:
    """The model folder of the wanted configuration; without a wish the only one, or the cascade of two stages."""
    tasks = sorted({folder.parent.name for folder in found})
    if len(tasks) > 1:
        raise ModelError(
            f"{path} holds models of several data sets ({', '.join(tasks)}); pick the folder of one of them."
        )
    names = {folder: folder.parent.parent.name for folder in found}
    named = [folder for folder in found if wanted in (None, names[folder], folder.name)]
    named = named or [folder for folder in found if names[folder] not in CONFIGURATIONS]
    if wanted is None and len(named) == 2 and set(names.values()) == {"3d_lowres", "3d_cascade_fullres"}:
        named = [folder for folder in named if names[folder] == "3d_cascade_fullres"]
    if len(named) == 1:
        return named[0]
    there = ", ".join(f"{names[folder]}: {folder.name}" for folder in found)
    if not named:
        raise ModelError(f"{path} has no trained configuration {wanted}; it has {there}.")
    raise ModelError(f"{path} holds several models ({there}); choose a configuration, or pick one folder.")


def _previous_folder(folder: Path) -> Path | None:
    """The model of the same task and plans below 3d_lowres, where version 1 has configurations side by side."""
    beside = folder.parent.parent.with_name("3d_lowres") / folder.parent.name
    plans = folder.name.split("__")[-1]
    candidates = [beside / f"nnUNetTrainerV2__{plans}", *visible(beside, f"*__{plans}")]
    return next((candidate for candidate in candidates if is_v1_folder(candidate)), None)


def _v1_folders(path: Path, depth: int) -> Iterator[Path]:
    if is_v1_folder(path):
        yield path
    elif depth > 0:
        for child in visible(path):
            with contextlib.suppress(PermissionError):  # a folder of somebody else, like lost+found
                if child.is_dir() and not child.is_symlink():
                    yield from _v1_folders(child, depth - 1)
