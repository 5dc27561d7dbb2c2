"""Finding things by the names people give them: tasks, plans, folds, models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .errors import PlanError, RunError, SettingsError, TaskError, counted, require_choice, some
from .folders import RAW, ModelFolders, TaskFolders, Workspace
from .folds import Fold, load_folds, make_folds, save_folds
from .given import fold_names, path_of
from .labels import LabelSet
from .machine.locks import holder, require_free
from .machine.memory import Say, unsaid
from .model import Model, load_model
from .model.selected import read_selected
from .planning.plan import CONFIGURATIONS, Plan, load_plan, plans_files, require_plans_name
from .planning.presets import find_preset
from .records import kind_of, read_json
from .task import Task, load_task

TaskReference = Task | str | int | Path
WorkspaceReference = Workspace | str | Path | None


def folders_of(task: TaskReference, workspace: WorkspaceReference = None) -> TaskFolders:
    """All folders of a task; raises TaskError when it is unknown.

    A task that is given as record or raw folder is worked on where it lies, unless a workspace is named, or the
    environment names folders for what is made of it.
    """
    if isinstance(task, Task):
        return TaskFolders(_workspace_around(task.folder, workspace), task.name, task.folder)
    folder = path_of(task) if isinstance(task, (str, Path)) and str(task) else None
    if folder is not None and (folder / "dataset.json").is_file():
        return _workspace_around(folder, workspace).task(folder)
    return workspace_of(workspace).task(task)


def _workspace_around(raw: Path, workspace: WorkspaceReference) -> Workspace:
    """The workspace that is named, else the one whose folder nnUNet_raw holds the task."""
    root = raw.absolute().parent
    return Workspace.around(root) if workspace is None and root.resolve().name == RAW else workspace_of(workspace)


def open_task(task: TaskReference, workspace: WorkspaceReference = None) -> Task:
    """The task's record; raises TaskError when its raw data are not there."""
    if isinstance(task, Task):
        return task
    return load_task(folders_of(task, workspace).raw)


def plan_of(folders: TaskFolders, plans: str | None = None, preset: str | None = None) -> Plan:
    """The plan by name or preset, else the one written last; raises PlanError without one, SettingsError."""
    name = plans_name_of(plans, preset)
    if name:
        if not folders.plan(name).is_file():
            raise PlanError(f"{folders.name} has no plan {name}; make it with 'nnsegment plan'.")
        return load_plan(folders.plan(name))
    found = plans_files(folders.preprocessed)
    if not found:
        raise PlanError(f"{folders.name} has no plan yet; make one with 'nnsegment plan {folders.name}'.")
    return load_plan(max(found, key=lambda path: path.stat().st_mtime))


def plans_name_of(plans: str | None, preset: str | None) -> str | None:
    """The plans name that is asked for, if any.

    The name wins over a preset, whose plan may have been given that name. Raises SettingsError for a name that would
    leave the task's folders, and for an unknown preset.
    """
    of_preset = None if preset is None else find_preset(preset).plans_name
    if plans is not None:
        require_plans_name(plans)
    return plans or of_preset


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
    are_nnunets = folds == make_folds(list(in_folds))
    if are_nnunets and not is_begun(folders):
        say("Cases came or went since the folds were made; they are made anew.")
        save_folds(make_folds(ids), folders.splits)
        return load_folds(folders.splits)
    if unused := sorted(set(ids) - in_folds):
        say(
            f"{counted(len(unused), 'case')} of {task.name} ({some(unused)}) are in no fold and are not trained on; "
            + _advice(folders, are_nnunets)
        )
    return folds


def _advice(folders: TaskFolders, are_nnunets: bool) -> str:
    """What to do about cases in no fold; folds of somebody's own are not made anew by planning."""
    if are_nnunets:
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
    model: Path | str | Model | None,
    workspace: WorkspaceReference,
    configuration: str | None,
    plans: str | None,
    preset: str | None,
    folds: Sequence[int | str] | int | str | None,
) -> Model:
    """The model that the arguments of `predict` name; raises SettingsError, TaskError, RunError, ModelError."""
    if (model is None) == (task is None):
        raise SettingsError(
            f"Predicting needs a task or a model, found {'neither' if model is None else 'both'}; give one of them "
            "(-t TASK or -m MODEL)."
        )
    name, folds = plans_name_of(plans, preset), fold_names(folds)
    if model is not None:
        loaded = isinstance(model, Model)
        _require_of_model("plan", name)
        _require_of_model("configuration", configuration if loaded else None)
        _require_of_model("folds", folds if loaded else None)
        return model if loaded else load_model(path_of(model), configuration, folds)
    folders = folders_of(task, workspace)
    if not folders.models():
        raise RunError(f"{folders.name} has no trained model yet; train one with 'nnsegment train'.")
    if configuration is not None:
        return load_model(_only_trained(folders, configuration, name).folder, configuration, folds)
    if not folders.selection.is_file():
        require_free(folders.results)  # a comparison is about to tell what predicts, and with which post-processing
    return load_model(folders.results, None, folds) if name is None else _model_of_plan(folders, name, folds)


def _require_of_model(what: str, value: object) -> None:
    """Raises SettingsError when something is asked of a model that it has already."""
    if value is not None:
        raise SettingsError(
            f"A model has its own {what}, but {value!r} was asked for; leave that out, or choose it where the model is "
            "loaded or its task is named."
        )


def _only_trained(folders: TaskFolders, configuration: str, plans: str | None) -> ModelFolders:
    """The model of a configuration: of the plan of this name, else of the only one, else of the plan made last."""
    found = trained_models(folders, (configuration,), plans)
    if len({model.plans_name for model in found}) > 1:
        found = trained_models(folders, (configuration,), plan_of(folders).name)
    usual = folders.model(found[0].plans_name, configuration)
    return usual if usual in found else found[0]


def trained_models(
    folders: TaskFolders, configurations: Sequence[str] = (), plans: str | None = None
) -> tuple[ModelFolders, ...]:
    """The trained models of these configurations (any when none is named) and of the plan of this name (any for None).

    Raises RunError naming what was asked for and what there is when one is missing, SettingsError for a configuration
    that no plan has.
    """
    trained = folders.models()
    found = tuple(
        model for model in trained
        if model.configuration in (configurations or (model.configuration,)) and plans in (None, model.plans_name)
    )  # fmt: skip
    missing = [name for name in configurations if name not in {model.configuration for model in found}]
    require_planned(folders, missing)
    if found and not missing:
        return found
    if not trained:
        raise RunError(f"{folders.name} has no trained model yet; train one with 'nnsegment train'.")
    asked = f"trained {' and '.join(missing) or 'configuration'}{f' of the plan {plans}' if plans else ''}"
    there = ", ".join(f"{model.configuration} ({model.plans_name})" for model in trained)
    raise RunError(
        f"{folders.name} has no {asked}, it has {there}; train it with 'nnsegment train', or choose one of these."
    )


def require_planned(folders: TaskFolders, configurations: Sequence[str], plans: str | None = None) -> None:
    """Raises SettingsError for configurations that neither the rules nor the plan of this name, or any plan, have."""
    for name in configurations:
        if name not in CONFIGURATIONS:  # plans files, which may be damaged, are read for others only
            require_choice("The configuration", name, _planned(folders, plans))


def _planned(folders: TaskFolders, plans: str | None = None) -> tuple[str, ...]:
    """The configurations that the rules may plan, and those in the plan of this name or, without one, in any."""
    files = plans_files(folders.preprocessed) if plans is None else [folders.plan(plans)]
    written = [load_plan(path) for path in files if path.is_file()]
    names = (name for plan in written for name in (*(c.name for c in plan.configurations), *plan.unsupported))
    return tuple(dict.fromkeys([*CONFIGURATIONS, *names]))


def _model_of_plan(folders: TaskFolders, name: str, folds: Sequence[int | str] | None) -> Model:
    """What was selected with its post-processing, if it is of this plan; else the plan's only model."""
    found = [model for model in folders.models() if model.plans_name == name]
    if not found:
        others = ", ".join(sorted({model.plans_name for model in folders.models()}))
        raise RunError(
            f"{folders.name} has no trained model of the plan {name}, but of {others}; train one, or take that."
        )
    selected = read_selected(folders.results).models if folders.selection.is_file() else ()
    if selected and {*selected} <= {model.folder.name for model in found}:
        return load_model(folders.results, None, folds)
    if len(found) == 1:
        return load_model(found[0].folder, found[0].configuration, folds)
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
    try:
        return _labels_in(card)
    except TaskError as wrong:
        raise TaskError(
            f"The labels cannot be taken from {card} ({str(wrong).rstrip('.')}); correct that file, or give 'evaluate' "
            "their values with --labels 1 2 …"
        ) from wrong


def _labels_in(card: Path) -> LabelSet:
    """The labels of a dataset.json of nnU-Net v2, or of v1 and the Decathlon, which name them by value."""
    values = read_json(card)
    if not isinstance(values, dict):
        raise TaskError(f"a JSON object is expected, found {kind_of(values)}")
    labels = values.get("labels")
    if isinstance(labels, dict) and labels and all(str(key).isdecimal() for key in labels):
        from .formats.source import value_to_name  # the readers of every system come along

        return value_to_name(labels, card.parent)
    return LabelSet.from_dataset_json(values)


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


def model_place(model: TaskReference | Path, workspace: WorkspaceReference = None) -> Path:
    """A model's folder, zip or checkpoint as given, else the results of the task of that number or name.

    Raises TaskError when there is no such task, RunError when it has no results.
    """
    found = path_of(model) if isinstance(model, (str, Path)) else None
    is_path = found is not None and (
        isinstance(model, Path) or len(found.parts) > 1 or found.suffix in (".zip", ".pth")
    )
    if found is not None and (is_path or found.exists()):
        return found
    folders = folders_of(model, workspace)
    if not folders.results.is_dir():
        raise RunError(f"{folders.name} has no trained model yet; train one with 'nnsegment train'.")
    return folders.results


def workspace_of(workspace: WorkspaceReference) -> Workspace:
    """The workspace itself, or the one at a folder, or the one the environment names."""
    return workspace if isinstance(workspace, Workspace) else Workspace.find(workspace)
