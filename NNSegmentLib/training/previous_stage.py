"""What a cascade takes from its previous stage: predictions of present weights that never saw the case."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..errors import TaskError, counted, some
from ..folders import ModelFolders, TaskFolders
from ..folds import Fold, load_folds
from ..planning.plan import Plan
from ..preprocessing.storage import previous_stage_file
from ..provenance.corrected import has_other_images
from ..provenance.predicted_by import StageInput, load_stage_input
from ..task import Task


def previous_stage_of(folders: TaskFolders, task: Task, plan: Plan, configuration: str, fold: Fold) -> Path | None:
    """The folder with the predictions that a cascade takes as input, None for no cascade.

    Raises TaskError when some are missing, or made of images or by weights that were replaced, or by weights that were
    trained on a case while a fold that never saw it is trained. What earlier versions wrote, which do not say by which
    weights, is taken as it is.
    """
    previous = plan.configuration(configuration).previous_stage
    if not previous:
        return None
    model = folders.model(plan.name, previous)
    folder, case_ids = model.next_stage(configuration), tuple(dict.fromkeys(fold.train + fold.validation))
    missing = [case_id for case_id in case_ids if not previous_stage_file(folder, case_id).is_file()]
    if missing:
        raise TaskError(
            f"{configuration} takes the validation predictions of {previous} as input, which are missing for "
            f"{len(missing)} cases ({some(missing)}); train all folds of {previous} first, and 'nnsegment validate' "
            f"those that were trained before {configuration} was prepared."
        )
    notes = {case_id: note for case_id in case_ids if (note := load_stage_input(folder, case_id))}
    to_validate = _outdated(folders, task, model, notes)
    if to_validate:
        commands = [f"'{model.command('validate', name)}'" for name in sorted({*to_validate.values()}, key=str)]
        raise TaskError(
            f"{configuration} takes the validation predictions of {previous} as input, and those of "
            f"{counted(len(to_validate), 'case')} ({some(list(to_validate))}) are of images or weights that were "
            f"replaced, or of weights that were trained on them; make them anew with {' and '.join(commands)}."
        )
    return folder


def _outdated(
    folders: TaskFolders, task: Task, model: ModelFolders, notes: Mapping[str, StageInput]
) -> dict[str, int | str]:
    """The cases whose input should be made anew, and the fold that does so."""
    replaced = {w: w.are_replaced_in(model.fold(w.fold)) for w in {note.weights for note in notes.values()}}
    unseen_by = _trained_folds_without(folders, model)
    cases = {case.id: case for case in task.cases}
    return {
        case_id: unseen_by.get(case_id, note.weights.fold)
        for case_id, note in notes.items()
        if replaced[note.weights]
        or (not note.held_out and case_id in unseen_by)
        or has_other_images(cases[case_id], note.files)
    }


def _trained_folds_without(folders: TaskFolders, model: ModelFolders) -> dict[str, int]:
    """The trained fold that validates each case and did not train on it."""
    folds = enumerate(load_folds(folders.splits))
    trained = [(number, fold) for number, fold in folds if model.fold(number).has_weights]
    return {case_id: number for number, fold in trained for case_id in {*fold.validation} - {*fold.train}}
