"""Finding things by the names people give them: tasks, plans, folds, models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .errors import PlanError, RunError, SettingsError, TaskError, counted, some
from .folders import RAW, TaskFolders, Workspace
from .folds import Fold, load_folds, make_folds, save_folds
from .labels import LabelSet
from .locks import holder
from .memory import Say, unsaid
from .model import Model, load_model
from .planning.plan import Plan, load_plan, plans_files, require_plans_name
from .planning.presets import find_preset
from .records import read_json
from .task import Task, load_task

TaskReference = Task | str | int | Path
WorkspaceReference = Workspace | str | Path | None


def folders_of(task: TaskReference, workspace: WorkspaceReference = None) -> TaskFolders:
    """All folders of a task; raises TaskError when it is unknown."""
    if not isinstance(task, Task):
        return workspace_of(workspace).task(task)
    if workspace is None and task.folder.parent.name == RAW:
        workspace = task.folder.parents[1]
    return TaskFolders(workspace_of(workspace), task.name, task.folder)


def open_task(task: TaskReference, workspace: WorkspaceReference = None) -> Task:
    """The task's record; raises TaskError when its raw data are not there."""
    if isinstance(task, Task):
        return task
    return load_task(folders_of(task, workspace).raw)


def plan_of(folders: TaskFolders, plans: str | None = None, preset: str | None = None) -> Plan:
    """The plan by name or preset, else the one written last; raises PlanError without one, SettingsError."""
    name = _plans_name(plans, preset)
    if name:
        if not folders.plan(name).is_file():
            raise PlanError(f"{folders.name} has no plan {name}; make it with 'nnsegment plan'.")
        return load_plan(folders.plan(name))
    found = plans_files(folders.preprocessed)
    if not found:
        raise PlanError(f"{folders.name} has no plan yet; make one with 'nnsegment plan {folders.name}'.")
    return load_plan(max(found, key=lambda path: path.stat().st_mtime))


def _plans_name(plans: str | None, preset: str | None) -> str | None:
    """The plans name that is asked for, if any; raises SettingsError for one that would leave the task's folders."""
    if plans is not None:
        require_plans_name(plans)
    return plans or (find_preset(preset).plans_name if preset else None)


def folds_of(folders: TaskFolders, task: Task, say: Say = unsaid) -> tuple[Fold, ...]:
    """The task's folds: those in the preprocessed folder, else the raw folder's own, else nnU-Net's five.

    Where cases came or went since, nnU-Net's five are made anew as long as nothing was trained on the old ones;
    else, or when the folds are somebody's own, `say` hears which cases no fold has.
    """
    own, ids = task.folder / "splits_final.json", [case.id for case in task.cases]
    if not folders.splits.is_file():
        save_folds(load_folds(own) if own.is_file() else make_folds(ids), folders.splits)
    folds = load_folds(folders.splits)
    in_folds = {case_id for fold in folds for case_id in fold.train + fold.validation}
    if in_folds == set(ids):
        return folds
    if folds == make_folds(list(in_folds)) and not is_begun(folders):
        say("Cases came or went since the folds were made; they are made anew.")
        save_folds(make_folds(ids), folders.splits)
        return load_folds(folders.splits)
    if unused := sorted(set(ids) - in_folds):
        say(
            f"{counted(len(unused), 'case')} of {task.name} ({some(unused)}) are in no fold and are not trained on; "
            + _advice(folders)
        )
    return folds


def _advice(folders: TaskFolders) -> str:
    if is_begun(folders):
        return (
            f"begin again with all cases with 'nnsegment plan {folders.name} --anew', which keeps the trained models."
        )
    return f"add them to {folders.splits}, or delete that file to have the folds made anew."


def cases_in_no_fold(folders: TaskFolders, task: Task) -> tuple[str, ...]:
    """The ids of cases that came since the folds were made; raises TaskError when the file of folds is damaged."""
    if not folders.splits.is_file():
        return ()
    known = {case_id for fold in load_folds(folders.splits) for case_id in fold.train + fold.validation}
    return tuple(case.id for case in task.cases if case.id not in known)


def is_begun(folders: TaskFolders) -> bool:
    """Whether a fold was trained, or is at this moment and has no weights yet."""
    folds = (fold for model in folders.models() for fold in model.folds())
    return any(fold.has_weights or holder(fold.folder) for fold in folds)


def model_of(
    task: TaskReference | None,
    path: Path | str | None,
    workspace: WorkspaceReference,
    configuration: str | None,
    plans: str | None,
    preset: str | None,
    folds: Sequence[int | str] | None,
) -> Model:
    """The model that the arguments of `predict` name; raises SettingsError, TaskError, RunError, ModelError."""
    if path is not None:
        return load_model(path, configuration, folds)
    if task is None:
        raise SettingsError("Predicting needs a task or a model; give -t TASK or -m MODEL.")
    folders = folders_of(task, workspace)
    if not folders.models():
        raise RunError(f"{folders.name} has no trained model yet; train one with 'nnsegment train'.")
    name = _plans_name(plans, preset)
    if name is None and configuration is not None:
        names = {m.plans_name for m in folders.models() if m.configuration == configuration}
        name = names.pop() if len(names) == 1 else plan_of(folders).name
    if name and configuration:
        return load_model(folders.model(name, configuration).folder, configuration, folds)
    return load_model(folders.results, configuration, folds) if name is None else _model_of_plan(folders, name, folds)


def _model_of_plan(folders: TaskFolders, name: str, folds: Sequence[int | str] | None) -> Model:
    """The only model of a plan, or the selected one if it is of that plan."""
    found = [model for model in folders.models() if model.plans_name == name]
    if not found:
        others = ", ".join(sorted({model.plans_name for model in folders.models()}))
        raise RunError(
            f"{folders.name} has no trained model of the plan {name}, but of {others}; train one, or take that."
        )
    if len(found) == 1:
        return load_model(found[0].folder, found[0].configuration, folds)
    if folders.selection.is_file():
        selected = load_model(folders.results, None, folds)
        if all(part.plan.name == name for part in selected.parts):
            return selected
    names = ", ".join(model.configuration for model in found)
    raise SettingsError(f"The plan {name} of {folders.name} has several models ({names}); choose one with -c.")


def label_set_beside(*folders: Path) -> LabelSet:
    """The labels of the first dataset.json in or above the folders; raises TaskError."""
    for folder in folders:
        if not folder.is_dir():
            raise TaskError(f"Expected a folder of label maps at {folder}, found none there; correct the path.")
    card = _card_beside(folders, "dataset.json")
    if card is None:
        raise TaskError(
            f"No dataset.json in or above {folders[0]} tells the labels; put the data set's there, or give 'evaluate' "
            "their values with --labels 1 2 …"
        )
    return LabelSet.from_dataset_json(read_json(card))


def reader_beside(*folders: Path) -> str:
    """nnU-Net's reader that the first plans.json in or above the folders names; empty without one."""
    card = _card_beside(folders, "plans.json")
    values = read_json(card) if card else {}
    return str(values.get("image_reader_writer", "")) if isinstance(values, dict) else ""


def _card_beside(folders: Sequence[Path], name: str) -> Path | None:
    places = (place for folder in folders for place in (folder, folder.parent, folder.parent.parent))
    return next((place / name for place in places if (place / name).is_file()), None)


def references_of(folders: TaskFolders, task: Task) -> Path:
    """The folder of reference labels: the raw one, else the copies beside the prepared data."""
    raw = task.folder / "labelsTr"
    return raw if raw.is_dir() else folders.reference_labels


def workspace_of(workspace: WorkspaceReference) -> Workspace:
    """The workspace itself, or the one at a folder, or the one the environment names."""
    return workspace if isinstance(workspace, Workspace) else Workspace.find(workspace)
