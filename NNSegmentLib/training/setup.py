"""Everything a training run needs, gathered and made ready: data, folds, the model folder."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from ..errors import PlanError, RunError, SettingsError, some
from ..folders import LABELS_CSV, FoldFolder, ModelFolders, TaskFolders
from ..folds import Fold, choose_fold
from ..given import fold_name, path_of
from ..lookup import TaskReference, WorkspaceReference, folders_of, folds_of, open_task, plan_of
from ..machine.locks import only_one_in
from ..machine.memory import Need, Say, announce, unsaid
from ..planning.plan import Configuration, Plan, load_plan, save_plan
from ..preflight import training_need
from ..preparation import keep_references, prepare_all, require_still_prepared
from ..progress import Progress, silent
from ..records import copy_whole, read_json
from ..run import Run, TrainingSettings
from ..task import Task, parse_dataset_json
from .budget import default_settings
from .previous_stage import previous_stage_of
from .resumed import require_same_cases, tell_changed_files


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
    trains: bool = True,
    pretrained: Path | str | None = None,
    gpus: int = 1,
    workers: int = 2,
    progress: Progress = silent,
    say: Say | None = None,
):
    """Everything a training run needs, with the data prepared and the model folder made; see `train`.

    With `say` the memory that training needs is estimated first; raises OutOfMemoryError when it cannot fit.
    What the user can get wrong is looked at before any work: raises PlanError, SettingsError, TaskError.
    A run that is resumed keeps the plan that it was begun with, and needs its training cases unless, to validate only, it
    does not train (`trains`); raises RunError when it would validate cases that it was trained on.
    """
    from ..engine.ranks import require_ranks
    from ..engine.trainer import TrainingRequest

    _require_settings(settings)
    name = fold_name(fold)
    folders, task = folders_of(task, workspace), open_task(task, workspace)
    chosen = plan_of(folders, plans, preset)
    model = folders.model(chosen.name, configuration)
    run_folder = model.fold(name)
    is_described = _is_described(model, None if resume else run_folder)
    if is_described:
        chosen = _plan_that_goes_on(model, chosen, configuration, task, resume)
    wanted, run = chosen.configuration(configuration), Run(run_folder, configuration, name)
    settings = settings or _own_settings(run, resume) or default_settings(chosen)
    if gpus > 1:
        require_ranks(settings.device, gpus, settings.batch_size or wanted.batch_size)
    cases = _fold_of(folders, task, name, say or unsaid)
    if resume:
        require_same_cases(run_folder, cases, task.name, trains)
    previous_stage = previous_stage_of(folders, task, chosen, configuration, cases)
    if say and not (resume and run.finished):
        say(f"Training {chosen.name} {configuration} fold {name} in {run_folder.folder}")
        need, free = _training_need(task, wanted, settings, cases, gpus)
        announce(need, say, free)
    keep_references(task, folders, workers, progress)
    preparation = prepare_all(task, folders, chosen, configuration, workers, progress, say or unsaid)
    prepared = preparation.folder
    if resume and say:
        tell_changed_files(run, prepared, previous_stage, say)
    if not is_described:
        _write_model_card(model, folders, task, chosen)
    return TrainingRequest(
        folder=run_folder, model_folder=model, plan=chosen, configuration=configuration, label_set=task.labels,
        n_channels=len(task.channels), dataset_json=task.dataset_json, fold=cases, fold_name=name,
        prepared=prepared, prepared_for=preparation.signature, previous_stage=previous_stage, settings=settings,
        resume=resume, pretrained=None if pretrained is None else path_of(pretrained),
    )  # fmt: skip


@contextlib.contextmanager
def at_work(request) -> Iterator[None]:
    """Only this process in the fold of a request, whose cases and model are what they were when it was made.

    Raises RunError when another process works there, or has prepared the cases for another plan or set the model aside.
    """
    with only_one_in(request.folder.folder):
        require_still_prepared(request.prepared, request.prepared_for)
        if not request.model_folder.plan.is_file():
            raise RunError(
                f"The model in {request.model_folder.folder} was removed or set aside since this run prepared its cases; "
                "start it again."
            )
        yield


def _plan_that_goes_on(model: ModelFolders, plan: Plan, configuration: str, task: Task, resume: bool) -> Plan:
    """The plan for another fold of a model that is trained: its own to resume, else one that fits.

    Raises PlanError, RunError where labels or channels mean something else than in the folds that are trained.
    """
    if resume:
        _require_same_meaning(model, task)
        return load_plan(model.plan)
    _require_same_plan(model, plan, configuration, task)
    return plan


def _own_settings(run: Run, resume: bool) -> TrainingSettings | None:
    """The settings that a run goes on with; None for one that begins."""
    return run.settings() if resume and run.folder.settings.is_file() else None


def _fold_of(folders: TaskFolders, task: Task, name: int | str, say: Say) -> Fold:
    """The cases of a fold; `say` hears of one beyond those that are listed."""
    folds = folds_of(folders, task, say)
    fold = choose_fold(folds, name, [case.id for case in task.cases])
    if name != "all" and name >= len(folds):
        say(
            f"Fold {name} is not among the folds 0 to {len(folds) - 1} of this task: its {len(fold.train)} training and "
            f"{len(fold.validation)} validation cases are drawn at random."
        )
    return fold


def _training_need(
    task: Task, configuration: Configuration, settings: TrainingSettings, fold: Fold, gpus: int
) -> tuple[Need, float | None]:
    """The memory that training needs, and the GB that are free on its GPU if it has one."""
    from ..engine.devices import choose_device, gpu_memory_gb, half_precision, release_memory

    device = choose_device(settings.device)
    if gpus == 1:
        release_memory(device)  # what the fold before this one kept is free
    # several processes look at their GPUs themselves: being on one of them here would take its memory
    free, total = (gpu_memory_gb(device) if gpus == 1 else None) or (None, 0.0)
    short = half_precision(device, settings.mixed_precision) is not None
    inputs = configuration.n_inputs(len(task.channels), len(task.labels.foreground_values))
    need = training_need(
        configuration, settings, n_channels=inputs, n_outputs=task.labels.n_outputs,
        n_cases=len({*fold.train, *fold.validation}), device=device.type, short_numbers=short, gpu_memory_gb=total,
        ranks=gpus,
    )  # fmt: skip
    return need, free


def _is_described(model: ModelFolders, replaced: FoldFolder | None) -> bool:
    """Whether the model folder's plan belongs to trained weights, but for those of a run that is `replaced`."""
    trained = (fold for fold in model.folds() if fold != replaced and fold.has_weights)
    return model.plan.is_file() and model.dataset_json.is_file() and any(trained)


def _require_same_meaning(model: ModelFolders, task: Task) -> None:
    """Raises RunError when weights would go on, or be scored, with labels or channels that they know otherwise."""
    channels, labels, _ = parse_dataset_json(read_json(model.dataset_json), model.folder)
    now = tuple(channel.name for channel in task.channels)
    changed = labels.changed_meaning(task.labels)
    if len(channels) != len(now) or (channels != now and sorted(channels) == sorted(now)):
        changed = f"channels {some(channels)} became {some(now)}"
    if changed:
        raise RunError(
            f"The folds in {model.folder} were trained with other labels or channels than the task has now ({changed}); "
            f"restore its dataset.json and files of that time, or begin again with 'nnsegment plan {task.name} --anew', "
            "which keeps the trained models."
        )


def _require_same_plan(model: ModelFolders, plan: Plan, configuration: str, task: Task) -> None:
    """Raises PlanError when a fold's weights would need another plan, labels or channels than those trained before."""
    before = load_plan(model.plan)
    card = parse_dataset_json(read_json(model.dataset_json), model.folder)
    same_task = card == parse_dataset_json(task.dataset_json, task.folder)
    if not same_task or _used_with_weights(before, configuration) != _used_with_weights(plan, configuration):
        what = "the plan" if same_task else "labels, channels or file type"
        raise PlanError(
            f"All folds of a model need one plan, but {what} changed since the folds in {model.folder} were trained; "
            f"begin again with 'nnsegment plan {task.name} --anew', which keeps the trained models, or give the new plan "
            f"a name of its own with 'nnsegment plan {task.name} -p NAME'."
        )


def _used_with_weights(plan: Plan, name: str) -> tuple[object, ...]:
    """What of a plan its weights are worth nothing without."""
    c = plan.configuration(name)
    scaled = plan.intensities if any(scheme.startswith("CT") for scheme in c.normalization) else ()
    return (plan.transpose_forward, scaled, c.patch_size, c.spacing_mm, c.normalization, c.use_mask_for_norm,
            c.network, c.resampling_data, c.previous_stage)  # fmt: skip


def _write_model_card(model: ModelFolders, folders: TaskFolders, task: Task, plan: Plan) -> None:
    """plans.json, dataset.json, fingerprint and colours, so that the model folder explains itself elsewhere."""
    save_plan(plan, model.plan)
    copy_whole(task.folder / "dataset.json", model.dataset_json)
    copy_if_there(folders.fingerprint, model.folder / folders.fingerprint.name)
    copy_if_there(task.folder / LABELS_CSV, model.labels_csv)


def copy_if_there(source: Path, target: Path) -> None:
    """Copy a file that may be absent, whole or not at all; raises StorageError."""
    if source.is_file():
        copy_whole(source, target)


def _require_settings(settings: object) -> None:
    if settings is not None and not isinstance(settings, TrainingSettings):
        raise SettingsError(
            f"settings should be TrainingSettings, found {type(settings).__name__}; write TrainingSettings(epochs=…), or "
            "leave it out for those that fit the plan."
        )
