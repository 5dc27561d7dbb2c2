"""What can be compared: the folds that all models have validated, with what they were made of as it is now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from ..errors import RunError, SettingsError, counted, some
from ..folders import DATASET_NAME, TRAINER, FoldFolder, ModelFolders, TaskFolders, visible
from ..folds import Fold, load_folds
from ..given import fold_name, is_digits
from ..image import FILE_ENDINGS
from ..labels import LabelSet
from ..model.selected import ComparedFold
from ..planning.plan import load_plan
from ..provenance.corrected import has_other_images
from ..provenance.made_of import seen_in_training, trained_and_validated
from ..provenance.predicted_by import Weights, load_predicted_by, made_with_other_stage
from ..records import read_json
from ..scores import case_id
from ..task import Case

FoldName = int | str


@dataclass(frozen=True)
class Comparison:
    """The models that can be compared, on the folds that all of them have completely validated."""

    models: tuple[ModelFolders, ...]
    folds: tuple[FoldName, ...]
    notes: tuple[str, ...]
    """What is compared and what was left out, for people."""


def choose_folds(
    folders: TaskFolders,
    models: Sequence[ModelFolders],
    folds: Sequence[FoldName] | None,
    ending: str | None = None,
    label_set: LabelSet | None = None,
    cases: Sequence[Case] = (),
) -> Comparison:
    """The folds to compare models on: those asked for, else all listed folds that every model has finished.

    Without folds asked for, models that have not finished any are left out. Raises RunError when a fold that was
    asked for is missing or incomplete or has others than the task's `cases`, or nothing is left to compare, also for
    labels that mean something else than in `label_set`, SettingsError for the fold 'all'.
    """
    known = frozenset(case.id for case in cases)
    models, renumbered = _with_same_labels(folders, models, label_set)
    splits = load_folds(folders.splits) if folders.splits.is_file() else ()
    wanted, beyond = _existing_folds(models, len(splits)) if folds is None else (_numbered(folds), [])
    problems = {m: {f: p for f in wanted if (p := _problem(m, f, splits, ending, known))} for m in models}
    usable = [m for m in models if len(problems[m]) < len(wanted)]
    chosen = [fold for fold in wanted if not any(fold in problems[m] for m in usable)]
    found = [*renumbered, *(problem for of_model in problems.values() for problem in of_model.values())]
    if not usable or not chosen or (found and folds is not None):
        raise RunError(found[0] if found else f"No fold of {folders.name} is validated yet; run 'nnsegment train'.")
    of_all = f" of {len(splits)}" if set(chosen) <= set(range(len(splits))) else ""
    compared = f"Compared on fold {', '.join(map(str, chosen))}{of_all}."
    found += [f"Fold {fold} is not in splits_final.json; its cases validate in other folds too." for fold in beyond]
    return Comparison(tuple(usable), tuple(chosen), (compared, *(f"Left out: {problem}" for problem in found)))


def replaced_images(comparison: Comparison, cases: Sequence[Case]) -> tuple[str, ...]:
    """A note for each compared fold that was validated on images which were replaced since, to be validated anew."""
    by_id, notes = {case.id: case for case in cases}, []
    for model, fold in product(comparison.models, comparison.folds):
        made_by = load_predicted_by(model.fold(fold))
        noted = [files for files in made_by.cases if files.case_id in by_id] if made_by else []
        if other := [files.case_id for files in noted if has_other_images(by_id[files.case_id], files)]:
            notes.append(
                f"Fold {fold} of {model.folder.name} was validated on images of {counted(len(other), 'case')} "
                f"({some(other)}) of another time or size than there are now; unless they were only copied, predict them "
                f"anew with '{_validate_command(model, fold)}'."
            )
    return tuple(notes)


def seen_cases(comparison: Comparison) -> tuple[str, ...]:
    """A note for each compared fold that was meant to train on cases that it validates with."""
    return tuple(
        f"Fold {fold} of {model.folder.name} was trained on {counted(len(seen), 'case')} that it validates with "
        f"({some(seen)}); its Dice says nothing about new cases."
        for model, fold in product(comparison.models, comparison.folds)
        if (seen := trained_and_validated(model.fold(fold)))
    )


def weights_of(comparison: Comparison) -> tuple[ComparedFold, ...]:
    """The weights of every compared fold that has any."""
    return tuple(
        ComparedFold(model.folder.name, weights)
        for model, fold in product(comparison.models, comparison.folds)
        if (weights := _weights_of(model.fold(fold), fold))
    )


def _weights_of(folder: FoldFolder, fold: FoldName) -> Weights | None:
    """What predicted a validation; where it does not tell, as in those of nnU-Net, the weights that are there now."""
    made_by = load_predicted_by(folder)
    if made_by:
        return made_by.weights
    return Weights.of(folder.weights, fold, 0) if folder.weights else None


def _numbered(folds: Sequence[FoldName]) -> list[int]:
    """The folds that were asked for; raises SettingsError for 'all'."""
    names = [fold_name(fold) for fold in folds]
    if "all" in names:
        raise SettingsError(
            "Cross-validation needs cases that a fold was not trained on, and fold 'all' was trained on every one; name "
            "numbered folds such as -f 0 1 2 3 4."
        )
    return names


def _with_same_labels(
    folders: TaskFolders, models: Sequence[ModelFolders], label_set: LabelSet | None
) -> tuple[list[ModelFolders], list[str]]:
    """The models whose labels mean what they do in the task, and why the others cannot be compared."""
    described = [model for model in models if label_set and model.dataset_json.is_file()]
    changed = {
        model: LabelSet.from_dataset_json(read_json(model.dataset_json)).changed_meaning(label_set)
        for model in described
    }
    problems = [
        f"{model.folder.name} was trained with other labels than the task has now ({what}); restore the task's "
        f"dataset.json and files of that time, or begin again with 'nnsegment plan {folders.name} --anew'."
        for model, what in changed.items()
        if what
    ]
    return [model for model in models if not changed.get(model)], problems


def _existing_folds(models: Sequence[ModelFolders], listed: int) -> tuple[list[int], list[int]]:
    """The validated folds of those listed, and the random ones beyond, which count only where there are no others."""
    names = {p.parent.name[5:] for m in models for p in visible(m.folder, "fold_*/validation") if p.is_dir()}
    found = sorted(int(name) for name in names if is_digits(name))
    within = [fold for fold in found if fold < listed]
    return (within, [fold for fold in found if fold >= listed]) if within else (found, [])


def _problem(
    model: ModelFolders, fold: FoldName, splits: Sequence[Fold], ending: str | None, known: frozenset[str]
) -> str:
    """Why this fold of a model cannot be compared; empty when it can. The task's cases are `known`, where any are."""
    validation = model.fold(fold).validation
    if not validation.is_dir():
        return f"Fold {fold} of {model.folder.name} has no validation; run '{_train_command(model, fold)}'."
    expected = splits[fold].validation if isinstance(fold, int) and fold < len(splits) else ()
    endings = (ending,) if ending else FILE_ENDINGS
    present = {case_id(path) for path in visible(validation) if path.name.endswith(endings)}
    if seen := seen_in_training(model.fold(fold), expected or present):
        return (
            f"Fold {fold} of {model.folder.name} was trained on {counted(len(seen), 'case')} ({some(seen)}) that it is "
            "to be validated with; restore the splits_final.json of that time, or train it again."
        )
    if known and (gone := sorted({*(expected or present)} - known)):
        return (
            f"Fold {fold} of {model.folder.name} validates with {counted(len(gone), 'case')} ({some(gone)}) that the "
            f"task does not have; take them out of splits_final.json and run '{_validate_command(model, fold)}', or "
            "add them again."
        )
    if expected and (others := sorted(present - {*expected})):
        return (
            f"The validation of fold {fold} of {model.folder.name} has {counted(len(others), 'label map')} "
            f"({some(others)}) of other cases than splits_final.json names for it; restore the splits_final.json of "
            f"that time, or {_advice_on_others(model, fold)}."
        )
    if lack := _lack(model, fold, expected, present):
        command = _validate_command(model, fold)
        return f"The validation of fold {fold} of {model.folder.name} {lack}; finish it with '{command}'."
    return ""


def _train_command(model: ModelFolders, fold: FoldName) -> str:
    """The command that brings a fold to its first validation, by going on with what is there."""
    folder = model.fold(fold)
    if folder.checkpoint_final.is_file():
        return _validate_command(model, fold)
    if model.trainer != TRAINER:
        return _nnunets_command(model, fold) + (" --c" if folder.has_weights else "")
    return model.command("train", fold) + (" --resume" if folder.has_weights else "")


def _validate_command(model: ModelFolders, fold: FoldName) -> str:
    """The command that validates a fold anew, with the probabilities that it had."""
    has_probabilities = visible(model.fold(fold).validation, "*.npz")
    if model.trainer != TRAINER:
        return _nnunets_command(model, fold) + " --val" + (" --npz" if has_probabilities else "")
    return model.command("validate", fold) + (" --save-probabilities" if has_probabilities else "")


def _nnunets_command(model: ModelFolders, fold: FoldName) -> str:
    """For folds of nnU-Net's other trainers, which are nnU-Net's to finish."""
    number = DATASET_NAME.match(model.folder.parent.name).group(1)
    return f"nnUNetv2_train {number} {model.configuration} {fold} -tr {model.trainer} -p {model.plans_name}"


def _advice_on_others(model: ModelFolders, fold: FoldName) -> str:
    """nnU-Net leaves them where they are."""
    ours = f"remove them by '{_validate_command(model, fold)}'"
    return ours if model.trainer == TRAINER else f"delete them in {model.fold(fold).validation}"


def _lack(model: ModelFolders, fold: FoldName, expected: Sequence[str], present: set[str]) -> str:
    """What a validation lacks, between 'The validation' and 'finish it'; empty when it is complete."""
    if missing := sorted(set(expected) - present):
        return f"lacks {len(missing)} of {len(expected)} validation cases ({some(missing)})"
    if not present:
        return "is empty"
    made_by = load_predicted_by(model.fold(fold))
    if made_by is None:
        return ""
    if made_by.weights.are_replaced_in(model.fold(fold)):
        return "was made by weights that were replaced"
    stage = _earlier_stage(model) if any(files.previous_stage for files in made_by.cases) else None
    if stage and (other := made_with_other_stage(made_by, stage, model.configuration)):
        return f"was made with weights of {stage.configuration} that were replaced (for {some(other)})"
    return ""


def _earlier_stage(model: ModelFolders) -> ModelFolders:
    """The model whose predictions a cascade takes."""
    name = load_plan(model.plan).configuration(model.configuration).previous_stage
    return ModelFolders(model.folder.with_name(f"{model.trainer}__{model.plans_name}__{name}"))
