"""The verbs: one function per capability, called alike by the panel, the command line and the console.

A task is given as `Task`, number ('4'), name ('Dataset004_Hippocampus') or folder; a workspace as a folder,
`Workspace`, or None for nnU-Net's environment variables or ~/NNSegment. Paths are arguments, never global state.
torch is imported inside the functions that need it, so that planning and reading never pay for it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from .errors import PlanError, RunError, SettingsError, TaskError
from .fingerprint import Fingerprint, compute_fingerprint, load_fingerprint, save_fingerprint
from .folders import ModelFolders, TaskFolders, Workspace
from .folds import Fold, choose_fold, load_folds, make_folds, save_folds
from .integrity import Finding, check_task, fix_task
from .labels import LabelSet
from .model import Model, load_model
from .planning.plan import CONFIGURATIONS, Plan, load_plan, save_plan
from .planning.presets import find_preset
from .postprocessing_rules import PostProcessing
from .prediction import Prediction
from .preparation import Preparation, keep_references, prepare_all
from .progress import Progress, silent
from .records import read_json
from .run import Run, TrainingSettings
from .scores import Scores
from .selection import Selection
from .task import Task, load_task

TaskReference = Task | str | int | Path
WorkspaceReference = Workspace | str | Path | None


def folders_of(task: TaskReference, workspace: WorkspaceReference = None) -> TaskFolders:
    """All folders of a task; raises TaskError when it is unknown."""
    if not isinstance(task, Task):
        return _workspace(workspace).task(task)
    if workspace is None and task.folder.parent.name == "nnUNet_raw":
        workspace = task.folder.parents[1]
    return TaskFolders(_workspace(workspace), task.name, task.folder)


def open_task(task: TaskReference, workspace: WorkspaceReference = None) -> Task:
    """The task's record; without its raw data, from the preprocessed folder's copy. Raises TaskError."""
    if isinstance(task, Task):
        return task
    return load_task(folders_of(task, workspace).raw)


def convert(
    source: Path | str,
    workspace: WorkspaceReference = None,
    *,
    labels: Path | None = None,
    channels: Sequence[str] = (),
    id: int | None = None,
    name: str | None = None,
    in_place: bool = False,
    workers: int = 2,
    progress: Progress = silent,
) -> Task:
    """Make a task of a Decathlon, nnU-Net v1 or v2 folder, or of a folder of images and one of labels.

    `channels` names the channels of plain folders; the name decides how intensities are normalised ('CT', 'T1', …).
    Raises TaskError when the folder is none of these or the number is taken; the source is never changed.
    """
    from .formats import convert as convert_source

    return convert_source(
        Path(source), _workspace(workspace), labels=labels, channels=channels or None, id=id, name=name, in_place=in_place,
        workers=workers, progress=progress,
    )  # fmt: skip


def check(
    task: TaskReference,
    workspace: WorkspaceReference = None,
    *,
    fix: bool = False,
    workers: int = 2,
    progress: Progress = silent,
) -> list[Finding]:
    """Everything wrong with a task's files; with `fix`, mend what can be mended first (originals are kept)."""
    task = open_task(task, workspace)
    fixed = fix_task(task, workers=workers, progress=progress) if fix else []
    return fixed + check_task(load_task(task.folder), workers=workers, progress=progress)


def extract_fingerprint(
    task: TaskReference,
    workspace: WorkspaceReference = None,
    *,
    clean: bool = False,
    workers: int = 2,
    progress: Progress = silent,
) -> Fingerprint:
    """The task's fingerprint; read from disk when there is one, unless `clean`."""
    folders = folders_of(task, workspace)
    if folders.fingerprint.is_file() and not clean:
        return load_fingerprint(folders.fingerprint)
    found = compute_fingerprint(open_task(task, workspace), workers=workers, progress=progress)
    save_fingerprint(found, folders.fingerprint)
    return found


def plan(
    task: TaskReference,
    workspace: WorkspaceReference = None,
    *,
    preset: str = "default",
    gpu_memory_gb: float | None = None,
    spacing_mm: tuple[float, float, float] | None = None,
    name: str | None = None,
    clean: bool = False,
    workers: int = 2,
    progress: Progress = silent,
) -> Plan:
    """Fingerprint the task if need be, and write its plan, splits and copies of dataset.json and reference labels."""
    from .planning.planner import make_plan

    folders, task = folders_of(task, workspace), open_task(task, workspace)
    found = extract_fingerprint(task, folders.workspace, clean=clean, workers=workers, progress=progress)
    made = make_plan(task, found, preset=preset, gpu_memory_gb=gpu_memory_gb, name=name, spacing_mm=spacing_mm)
    made = _keeping_custom_configurations(made, folders.plan(made.name))
    save_plan(made, folders.plan(made.name))
    shutil.copyfile(task.folder / "dataset.json", folders.preprocessed / "dataset.json")
    _copy_if_there(task.folder / "labels.csv", folders.preprocessed / "labels.csv")
    folds_of(folders, task)
    return made


def plan_of(folders: TaskFolders, plans: str | None = None, preset: str | None = None) -> Plan:
    """The plan by name or preset, else the one written last; raises PlanError when there is none."""
    name = plans or (find_preset(preset).plans_name if preset else None)
    if name:
        if not folders.plan(name).is_file():
            raise PlanError(f"{folders.name} has no plan {name}; make it with 'nnsegment plan'.")
        return load_plan(folders.plan(name))
    known = ("dataset.json", folders.fingerprint.name, folders.splits.name)
    found = (
        [p for p in folders.preprocessed.glob("*.json") if p.name not in known] if folders.preprocessed.is_dir() else []
    )
    plans_files = [p for p in found if folders.plan(p.stem).is_file() and '"plans_name"' in p.read_text()[:2000]]
    if not plans_files:
        raise PlanError(f"{folders.name} has no plan yet; make one with 'nnsegment plan {folders.name}'.")
    return load_plan(max(plans_files, key=lambda p: p.stat().st_mtime))


def folds_of(folders: TaskFolders, task: Task) -> tuple[Fold, ...]:
    """The task's folds: those in the preprocessed folder, else the raw folder's own, else nnU-Net's five."""
    if not folders.splits.is_file():
        own = task.folder / "splits_final.json"
        save_folds(load_folds(own) if own.is_file() else make_folds([case.id for case in task.cases]), folders.splits)
    return load_folds(folders.splits)


def preprocess(
    task: TaskReference,
    workspace: WorkspaceReference = None,
    *,
    configurations: Sequence[str] = (),
    plans: str | None = None,
    preset: str | None = None,
    workers: int = 2,
    progress: Progress = silent,
) -> list[Preparation]:
    """Prepare all cases for the configurations (all of the plan when none is named); finished cases are kept.

    Raises PlanError for an unknown configuration, ImageError naming the case that cannot be prepared.
    """
    folders, task = folders_of(task, workspace), open_task(task, workspace)
    chosen = plan_of(folders, plans, preset)
    names = configurations or [c.name for c in chosen.configurations if not c.inherits_from]
    by_data = {
        chosen.configuration(name).data_identifier: name for name in names
    }  # the cascade shares 3d_fullres' data
    keep_references(task, folders, workers, progress)
    return [prepare_all(task, folders, chosen, name, workers, progress) for name in by_data.values()]


def train(
    task: TaskReference,
    configuration: str,
    fold: int | str = 0,
    workspace: WorkspaceReference = None,
    *,
    settings: TrainingSettings | None = None,
    plans: str | None = None,
    preset: str | None = None,
    resume: bool = False,
    pretrained: Path | None = None,
    validate: bool = True,
    save_probabilities: bool = False,
    workers: int = 2,
    progress: Progress = silent,
) -> Run:
    """Train one fold, preparing the data first if need be, and validate it on its full validation cases.

    `fold` is a number or 'all'. A run that is stopped leaves a valid model and can be resumed.
    """
    from .engine.trainer import train_fold

    request = training_request(
        task, configuration, fold, workspace, settings=settings, plans=plans, preset=preset,
        resume=resume, pretrained=pretrained, workers=workers, progress=progress,
    )  # fmt: skip
    run = train_fold(request, progress)
    if validate and run.finished:
        _validate(request, save_probabilities, workers, progress)
    return run


def validate(
    task: TaskReference,
    configuration: str,
    fold: int | str = 0,
    workspace: WorkspaceReference = None,
    *,
    plans: str | None = None,
    preset: str | None = None,
    settings: TrainingSettings | None = None,
    save_probabilities: bool = False,
    workers: int = 2,
    progress: Progress = silent,
) -> Scores:
    """Predict and score the full validation cases of a trained fold again; raises RunError when it is not trained."""
    request = training_request(
        task, configuration, fold, workspace, settings=settings, plans=plans, preset=preset,
        resume=True, workers=workers, progress=progress,
    )  # fmt: skip
    return _validate(request, save_probabilities, workers, progress, again=True)


def training_request(
    task: TaskReference,
    configuration: str,
    fold: int | str,
    workspace: WorkspaceReference = None,
    *,
    settings: TrainingSettings | None = None,
    plans: str | None = None,
    preset: str | None = None,
    resume: bool = False,
    pretrained: Path | None = None,
    workers: int = 2,
    progress: Progress = silent,
):
    """Everything a training run needs, with the data prepared and the model folder made; see `train`."""
    from .budget import default_settings
    from .engine.trainer import TrainingRequest

    folders, task = folders_of(task, workspace), open_task(task, workspace)
    chosen = plan_of(folders, plans, preset)
    wanted = chosen.configuration(configuration)
    model, name = folders.model(chosen.name, configuration), _fold_name(fold)
    run_folder = model.fold(name)
    if resume and settings is None and run_folder.settings.is_file():
        settings = Run(run_folder, configuration, name).settings()
    preprocess(
        task, folders.workspace, configurations=(configuration,), plans=chosen.name, workers=workers, progress=progress
    )
    _write_model_card(model, folders, task, chosen)
    return TrainingRequest(
        folder=run_folder,
        model_folder=model,
        plan=chosen,
        configuration=configuration,
        label_set=task.labels,
        n_channels=len(task.channels),
        dataset_json=task.dataset_json,
        fold=choose_fold(folds_of(folders, task), name, [case.id for case in task.cases]),
        fold_name=name,
        prepared=folders.prepared(wanted.data_identifier),
        previous_stage=_previous_stage(folders, chosen, configuration),
        settings=settings or default_settings(chosen, configuration),
        resume=resume,
        pretrained=pretrained,
    )


def best(
    task: TaskReference,
    workspace: WorkspaceReference = None,
    *,
    configurations: Sequence[str] = (),
    plans: str | None = None,
    preset: str | None = None,
    folds: Sequence[int | str] | None = None,
    ensembles: bool = True,
    workers: int = 2,
    progress: Progress = silent,
) -> Selection:
    """Compare the trained configurations and their ensembles by cross-validation and settle the post-processing."""
    from .selection import find_best

    folders, task = folders_of(task, workspace), open_task(task, workspace)
    name = plans or (find_preset(preset).plans_name if preset else None)
    candidates = [
        (model.plans_name, model.configuration)
        for model in folders.models()
        if (not configurations or model.configuration in configurations) and (name in (None, model.plans_name))
    ]
    if not candidates:
        raise RunError(f"{folders.name} has no trained configuration yet; train one with 'nnsegment train'.")
    return find_best(
        folders, task.labels, candidates, folds, ensembles=ensembles, references=_references(folders, task),
        file_ending=task.file_ending, workers=workers, progress=progress,
    )  # fmt: skip


def predict(
    inputs: Sequence[Path | str],
    output: Path | str,
    workspace: WorkspaceReference = None,
    *,
    task: TaskReference | None = None,
    model: Path | str | Model | None = None,
    configuration: str | None = None,
    plans: str | None = None,
    preset: str | None = None,
    folds: Sequence[int | str] | None = None,
    mirroring: bool = True,
    step: float = 0.5,
    save_probabilities: bool = False,
    overwrite: bool = True,
    device: str = "auto",
    progress: Progress = silent,
    say: Callable[[str], None] = lambda text: None,
) -> tuple[str, ...]:
    """Segment a folder of images, one image, or one file per channel; returns the ids of the predicted cases.

    With a `task` its best configuration or ensemble and post-processing (`best`) is used unless a configuration is
    named; `model` is any nnU-Net v2 model folder or zip. Labels are written on each input's own grid, in its file
    type. Raises ModelError, ImageError, and RunError naming the cases that failed while the others were finished.
    """
    from .engine.devices import choose_device
    from .engine.file_prediction import FileRequest, find_cases, predict_files
    from .engine.predictor import Predictor

    found = model if isinstance(model, Model) else _model(task, model, workspace, configuration, plans, preset, folds)
    cases = find_cases([Path(path).expanduser() for path in inputs], found)
    request = FileRequest(
        Path(output).expanduser(), save_probabilities=save_probabilities, overwrite=overwrite, finish=_finish(found)
    )
    predictor = Predictor(found, device=str(choose_device(device)), mirroring=mirroring, step=step, message=say)
    return predict_files(predictor, cases, request, progress)


def evaluate(
    predictions: Path | str,
    references: Path | str,
    labels: LabelSet | Sequence[int] | None = None,
    *,
    tolerance_mm: float = 1.0,
    workers: int = 2,
    progress: Progress = silent,
) -> Scores:
    """Score a folder of predictions and write summary.json into it.

    `labels` are a task's, or values, or None for those of the dataset.json in or above either folder.
    """
    from .evaluation import evaluate_folder, evaluate_simple

    predictions, references = Path(predictions), Path(references)
    common = {"tolerance_mm": tolerance_mm, "workers": workers, "progress": progress}
    if labels is not None and not isinstance(labels, LabelSet):
        return evaluate_simple(predictions, references, labels, **common)
    return evaluate_folder(predictions, references, labels or _label_set_beside(predictions, references), **common)


def ensemble(
    inputs: Sequence[Path | str],
    output: Path | str,
    *,
    save_probabilities: bool = False,
    workers: int = 2,
    progress: Progress = silent,
) -> tuple[str, ...]:
    """Average the probabilities of several prediction folders into label maps; returns the case ids."""
    from .ensembling import ensemble_folders

    folders = [Path(path) for path in inputs]
    return ensemble_folders(
        folders, Path(output), _label_set_beside(*folders), save_probabilities=save_probabilities,
        workers=workers, progress=progress,
    )  # fmt: skip


def postprocess(
    predictions: Path | str,
    output: Path | str | None = None,
    *,
    rules: Path | None = None,
    references: Path | None = None,
    workers: int = 2,
    progress: Progress = silent,
) -> PostProcessing:
    """Apply post-processing `rules` to a folder, or find the rules that raise the Dice against `references`.

    Raises SettingsError when neither or both are given.
    """
    from . import postprocessing

    if (rules is None) == (references is None):
        raise SettingsError("Give either rules to apply (--rules FILE) or references to find them (--references DIR).")
    predictions = Path(predictions)
    if rules:
        found = postprocessing.load_postprocessing(Path(rules))
    else:
        labels = _label_set_beside(predictions, Path(references))
        found = postprocessing.determine_postprocessing(
            predictions, Path(references), labels, workers=workers, progress=progress
        )
    if output:
        postprocessing.apply_postprocessing_to_folder(
            predictions, Path(output), found, workers=workers, progress=progress
        )
    return found


def write_report(
    task: TaskReference, path: Path | None = None, workspace: WorkspaceReference = None, progress: Progress = silent
) -> Path:
    """Write the task's report, one self-contained HTML page, by default results/<task>/report.html."""
    from .report import page

    folders = folders_of(task, workspace)
    return page.write_report(folders, Path(path) if path else folders.results / "report.html", progress)


def diagram(
    task: TaskReference,
    configuration: str,
    path: Path,
    workspace: WorkspaceReference = None,
    *,
    plans: str | None = None,
    preset: str | None = None,
) -> Path:
    """Draw a configuration's network as SVG, PNG or PDF (by the file's ending)."""
    from .report.diagram import draw_network

    folders, task = folders_of(task, workspace), open_task(task, workspace)
    chosen = plan_of(folders, plans, preset).configuration(configuration)
    channels = len(task.channels) + (len(task.labels.foreground_values) if chosen.previous_stage else 0)
    draw_network(chosen.network, chosen.patch_size, chosen.spacing_mm, channels, task.labels.n_outputs, Path(path))
    return Path(path)


def _workspace(workspace: WorkspaceReference) -> Workspace:
    return workspace if isinstance(workspace, Workspace) else Workspace.find(workspace)


def _model(task, path, workspace, configuration, plans, preset, folds) -> Model:
    """The model that the arguments of `predict` name."""
    if path is not None:
        return load_model(path, configuration, folds)
    if task is None:
        raise SettingsError("Predicting needs a task or a model; give -t TASK or -m MODEL.")
    folders = folders_of(task, workspace)
    if not folders.models():
        raise RunError(f"{folders.name} has no trained model yet; train one with 'nnsegment train'.")
    name = plans or (find_preset(preset).plans_name if preset else None)
    if name is None and configuration is not None:
        names = {m.plans_name for m in folders.models() if m.configuration == configuration}
        name = names.pop() if len(names) == 1 else plan_of(folders).name
    if name and configuration:
        return load_model(folders.model(name, configuration).folder, configuration, folds)
    return load_model(folders.results, configuration, folds)


def _finish(model: Model) -> Callable[[Prediction], Prediction]:
    """The post-processing that was chosen with the model."""
    from .postprocessing import apply_postprocessing, load_postprocessing

    if model.postprocessing is None:
        return lambda prediction: prediction
    rules = load_postprocessing(model.postprocessing)
    return lambda prediction: replace(prediction, labels=apply_postprocessing(prediction.labels, rules))


def _label_set_beside(*folders: Path) -> LabelSet:
    """The labels of the first dataset.json in or above the folders; raises TaskError."""
    for folder in folders:
        for place in (folder, folder.parent, folder.parent.parent):
            if (place / "dataset.json").is_file():
                return LabelSet.from_dataset_json(read_json(place / "dataset.json"))
    raise TaskError(f"No dataset.json in or above {folders[0]} tells the labels; give their values with --labels 1 2 …")


def _fold_name(fold: int | str) -> int | str:
    if str(fold) == "all":
        return "all"
    if not str(fold).isdigit():
        raise SettingsError(f"A fold is a number from 0, or 'all', found {fold!r}.")
    return int(fold)


def _references(folders: TaskFolders, task: Task) -> Path:
    raw = task.folder / "labelsTr"
    return raw if raw.is_dir() else folders.reference_labels


def _previous_stage(folders: TaskFolders, plan: Plan, configuration: str) -> Path | None:
    previous = plan.configuration(configuration).previous_stage
    return folders.model(plan.name, previous).next_stage(configuration) if previous else None


def _write_model_card(model: ModelFolders, folders: TaskFolders, task: Task, plan: Plan) -> None:
    """plans.json, dataset.json, fingerprint and colours, so that the model folder explains itself elsewhere."""
    save_plan(plan, model.plan)
    shutil.copyfile(task.folder / "dataset.json", model.dataset_json)
    _copy_if_there(folders.fingerprint, model.folder / folders.fingerprint.name)
    _copy_if_there(task.folder / "labels.csv", model.labels_csv)


def _copy_if_there(source: Path, target: Path) -> None:
    if source.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)


def _keeping_custom_configurations(made: Plan, existing: Path) -> Plan:
    """Configurations written by hand into an existing plans file stay, as in nnU-Net."""
    if not existing.is_file():
        return made
    names = {c.name for c in made.configurations}
    own = tuple(c for c in load_plan(existing).configurations if c.name not in {*names, *CONFIGURATIONS})
    return replace(made, configurations=made.configurations + own)


def _validate(request, save_probabilities: bool, workers: int, progress: Progress, again: bool = False) -> Scores:
    from .engine.validation import validate_fold

    return validate_fold(
        request, save_probabilities=save_probabilities, again=again, workers=workers, progress=progress
    )
