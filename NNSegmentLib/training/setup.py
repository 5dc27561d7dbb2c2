"""Everything a training run needs, gathered and made ready: data, folds, the model folder."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from ..errors import RunError, SettingsError
from ..folders import TaskFolders
from ..folds import Fold, choose_fold
from ..given import fold_name, path_of
from ..lookup import TaskReference, WorkspaceReference, folders_of, folds_of, open_task, plan_of
from ..machine.locks import only_one_in
from ..machine.memory import Need, Say, announce, unsaid
from ..planning.plan import Configuration
from ..preflight import training_need
from ..preparation import keep_references, prepare_all, require_still_prepared
from ..progress import Progress, silent
from ..run import Run, TrainingSettings
from ..task import Task
from .budget import default_settings
from .previous_stage import previous_stage_of
from .resumed import require_same_cases, tell_changed_files
from .same_model import is_described, plan_that_goes_on, write_model_card


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
    described = is_described(model, None if resume else run_folder)
    if described:
        chosen = plan_that_goes_on(model, chosen, configuration, task, resume)
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
    if not described:
        write_model_card(model, folders, task, chosen)
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


def _require_settings(settings: object) -> None:
    if settings is not None and not isinstance(settings, TrainingSettings):
        raise SettingsError(
            f"settings should be TrainingSettings, found {type(settings).__name__}; write TrainingSettings(epochs=…), or "
            "leave it out for those that fit the plan."
        )
