"""The verbs: one function per capability, called alike by the panel, the command line and the console.

Those that look at what is there already (`evaluate, ensemble, postprocess, write_report, diagram`) come from results.py.

A task is given as `Task`, number ('4'), name ('Dataset004_Hippocampus') or folder; a workspace as a folder,
`Workspace`, or None for nnU-Net's environment variables or ~/NNSegment. Paths are arguments, never global state.
torch is imported inside the functions that need it, so that planning and reading never pay for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from .errors import SettingsError, counted, require_choice, some
from .fingerprint import Fingerprint, compute_fingerprint, load_fingerprint, save_fingerprint
from .folders import LABELS_CSV, TaskFolders
from .given import any_of, fold_names, path_of, paths_of, whole_number, workers_for
from .integrity import Finding, check_task, fix_task, save_findings
from .lookup import (
    TaskReference,
    WorkspaceReference,
    folders_of,
    folds_of,
    model_of,
    open_task,
    plan_of,
    plans_name_of,
    references_of,
    trained_models,
    workspace_of,
)
from .machine.awake import kept_awake
from .machine.locks import one_after_another_in
from .machine.memory import Say, affordable_workers, announce, once, unsaid
from .model import Model
from .model.earlier import require_nothing_at_work, set_models_aside
from .model.selected import trained_again
from .planning.custom import keeping_custom_configurations
from .planning.plan import Plan, save_plan
from .preflight import fingerprint_gb, fingerprint_need, prediction_need
from .preparation import Preparation, keep_references, prepare_all
from .progress import Progress, silent
from .provenance.file_states import younger_cases
from .records import copy_if_there, copy_whole
from .results import diagram, ensemble, evaluate, postprocess, write_report
from .run import Run, TrainingSettings
from .scores import Scores
from .segments.label_files import OVERLAPS
from .selection.record import Selection
from .task import Task, load_task
from .training.length import too_few_steps
from .training.setup import at_work, training_request

__all__ = [
    "best", "check", "convert", "diagram", "ensemble", "evaluate", "extract_fingerprint", "folders_of", "folds_of",
    "open_task", "plan", "plan_of", "postprocess", "predict", "preprocess", "train", "validate", "write_report",
]  # fmt: skip


def convert(
    source: Path | str,
    workspace: WorkspaceReference = None,
    *,
    labels: Path | str | None = None,
    channels: Sequence[str] | str = (),
    id: int | str | None = None,
    name: str | None = None,
    in_place: bool = False,
    overlaps: str = "order",
    workers: int = 2,
    progress: Progress = silent,
) -> Task:
    """Make a task of a Decathlon, nnU-Net, TotalSegmentator, MONAI Label or DICOM folder, or of images and labels.

    `channels` names the channels of plain folders; the name decides how intensities are normalised ('CT', 'T1', …).
    Where named segments overlap the later label wins ("order"), or they become "regions", or are refused ("refuse").
    The source is never changed. Raises TaskError when the folder is none of these or the number `id` is taken, ImageError
    for damaged images, SettingsError for unknown `overlaps`, StorageError.
    """
    from .formats import convert as convert_source

    require_choice("overlaps", overlaps, OVERLAPS)
    if not isinstance(name, str | None):
        raise SettingsError(f"name should be a text, found {name!r:.60}; a data set's number is given as id.")
    names = any_of(channels) or None
    return convert_source(
        path_of(source), workspace_of(workspace), labels=None if labels is None else path_of(labels), channels=names,
        id=None if id is None else whole_number("id", id, 0), name=name, in_place=in_place, overlaps=overlaps,
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
    """Everything wrong with a task's files; with `fix`, mend what can be mended first (originals are kept).

    What was mended comes first, marked so. Raises TaskError when there is no such task, StorageError when a file cannot be
    mended or the findings cannot be kept.
    """
    folders, task = folders_of(task, workspace), open_task(task, workspace)
    fixed = fix_task(task, workers=workers, progress=progress) if fix else []
    left = check_task(load_task(task.folder), workers=workers, progress=progress)
    save_findings(left, folders.findings)
    return [replace(finding, mended=True) for finding in fixed] + left


def extract_fingerprint(
    task: TaskReference,
    workspace: WorkspaceReference = None,
    *,
    clean: bool = False,
    workers: int = 2,
    progress: Progress = silent,
    say: Say = unsaid,
) -> Fingerprint:
    """The task's fingerprint; read from disk when there is one of these cases, unless `clean`.

    Raises TaskError for an unknown task or one without labelled voxels, ImageError naming the file that cannot be used,
    OutOfMemoryError when a case cannot fit, StorageError.
    """
    folders, task = folders_of(task, workspace), open_task(task, workspace)
    if folders.fingerprint.is_file() and not clean:
        stored = load_fingerprint(folders.fingerprint)
        is_of_task = stored.is_of(case.id for case in task.cases) and len(stored.intensities) == len(task.channels)
        if is_of_task:
            _tell_younger_files(folders, task, say)
            return stored
        say(f"The cases or channels of {task.name} are others than those that were measured; they are measured anew.")
    each = fingerprint_gb(task.cases, len(task.channels))
    workers = affordable_workers(workers_for(len(task.cases), workers), each, "Reading a case", say)
    announce(fingerprint_need(each, workers), say)
    found = compute_fingerprint(task, workers=workers, progress=progress, say=say)
    save_fingerprint(found, folders.fingerprint)
    return found


def _tell_younger_files(folders: TaskFolders, task: Task, say: Say) -> None:
    if younger := younger_cases(task, folders.fingerprint.stat().st_mtime):
        say(
            f"Images or labels of {counted(len(younger), 'case')} ({some(younger)}) are younger than their "
            f"measurement, which is taken as it is; 'nnsegment plan {task.name} --clean' measures them again."
        )


def plan(
    task: TaskReference,
    workspace: WorkspaceReference = None,
    *,
    preset: str = "default",
    gpu_memory_gb: float | None = None,
    spacing_mm: Sequence[float] | None = None,
    name: str | None = None,
    clean: bool = False,
    anew: bool = False,
    workers: int = 2,
    progress: Progress = silent,
    say: Say = unsaid,
) -> Plan:
    """Fingerprint the task if need be, and write its plan, splits and copies of dataset.json and reference labels.

    `preset` is "default", "resenc-m", "resenc-l", "resenc-xl" or "small"; `gpu_memory_gb` (GB) plans for another graphics
    card than the preset's; `spacing_mm` is the voxel size (z, y, x of the files) that images are resampled to.
    `clean` measures the task again. `anew` begins again after cases came or were corrected: it measures, too, makes
    nnU-Net's folds of all cases (somebody's own stay), and sets the trained models aside (`list_models` still finds
    them, and they predict). Raises SettingsError, TaskError, ImageError, PlanError, OutOfMemoryError, StorageError,
    RunError for `anew` while a fold is trained or the models are compared.
    """
    from .planning.planner import make_plan, require_plan_settings

    require_plan_settings(preset, gpu_memory_gb, name, spacing_mm)  # measuring the task may take long
    folders, task = folders_of(task, workspace), open_task(task, workspace)
    if anew:
        require_nothing_at_work(folders)
    found = extract_fingerprint(
        task, folders.workspace, clean=clean or anew, workers=workers, progress=progress, say=say
    )
    made = make_plan(task, found, preset=preset, gpu_memory_gb=gpu_memory_gb, name=name, spacing_mm=spacing_mm)
    made = keeping_custom_configurations(made, folders.plan(made.name), say)
    if anew and (kept := set_models_aside(folders)):
        say(f"The models that were trained so far are kept in {kept}.")
    save_plan(made, folders.plan(made.name))
    copy_whole(task.folder / "dataset.json", folders.preprocessed / "dataset.json")
    copy_if_there(task.folder / LABELS_CSV, folders.preprocessed / LABELS_CSV)
    folds_of(folders, task, say)
    return made


def preprocess(
    task: TaskReference,
    workspace: WorkspaceReference = None,
    *,
    configurations: Sequence[str] | str = (),
    plans: str | None = None,
    preset: str | None = None,
    workers: int = 2,
    progress: Progress = silent,
    say: Say = unsaid,
) -> list[Preparation]:
    """Prepare all cases for the configurations (all of the plan that can be used when none is named); finished cases
    are kept. What a plan holds and cannot be used is said, unless it is named, which raises.

    `plans` or `preset` choose the plan, without them the one made last. Raises PlanError for an unknown configuration,
    SettingsError, ImageError naming the case that cannot be prepared, OutOfMemoryError, StorageError.
    """
    folders, task = folders_of(task, workspace), open_task(task, workspace)
    chosen = plan_of(folders, plans, preset)
    names = any_of(configurations)
    if not names:
        names = [c.name for c in chosen.configurations if not c.inherits_from]
        for name, reason in chosen.unsupported.items():
            say(f"{name} is not prepared. {reason}")
    # the cascade shares 3d_fullres' data
    by_data = {chosen.configuration(name).data_identifier: name for name in names}
    keep_references(task, folders, workers, progress)
    heard_once = once(say)
    return [prepare_all(task, folders, chosen, name, workers, progress, heard_once) for name in by_data.values()]


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
    pretrained: Path | str | None = None,
    validate: bool = True,
    save_probabilities: bool = False,
    gpus: int = 1,
    workers: int = 2,
    progress: Progress = silent,
    say: Say = unsaid,
) -> Run:
    """Train one fold, preparing the data first if need be, and validate it on its full validation cases.

    `fold` is a number from 0, or 'all'. `settings` None takes those that fit the plan: nnU-Net's, or for the preset
    "small" the quick recipe; a resumed run keeps its own. A run that is stopped leaves a valid model and can be resumed.
    Several `gpus` share each batch, one process for each; a script that asks for them needs the usual
    `if __name__ == "__main__":`. Raises TaskError, PlanError, SettingsError, ModelError (`pretrained`), ImageError,
    RunError when the fold is trained by another process or cannot go on, also since its cases are others than it was
    begun with, OutOfMemoryError, StorageError.
    """
    from .engine.rank_processes import train_fold_on

    gpus = whole_number("gpus", gpus, 1)
    request = training_request(
        task, configuration, fold, workspace, settings=settings, plans=plans, preset=preset,
        resume=resume, pretrained=pretrained, gpus=gpus, workers=workers, progress=progress, say=say,
    )  # fmt: skip
    with at_work(request), kept_awake():
        run = train_fold_on(request, gpus, progress)
        if run.finished and (warning := too_few_steps([run])):
            say(warning)
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
    """Predict and score the full validation cases of a trained fold again; `fold` is a number or 'all'.

    Their label maps and summary.json are written into the fold's folder validation. Raises RunError when it is not
    trained, or was trained on these cases, TaskError, PlanError, SettingsError, ImageError, OutOfMemoryError, StorageError.
    """
    request = training_request(
        task, configuration, fold, workspace, settings=settings, plans=plans, preset=preset,
        resume=True, trains=False, workers=workers, progress=progress,
    )  # fmt: skip
    with at_work(request):
        return _validate(request, save_probabilities, workers, progress, again=True)


def best(
    task: TaskReference,
    workspace: WorkspaceReference = None,
    *,
    configurations: Sequence[str] | str = (),
    plans: str | None = None,
    preset: str | None = None,
    folds: Sequence[int | str] | int | str | None = None,
    ensembles: bool = True,
    workers: int = 2,
    progress: Progress = silent,
    say: Say = unsaid,
) -> Selection:
    """Compare the trained configurations and their ensembles by cross-validation and settle the post-processing.

    What it finds is what `predict` uses from then on. `configurations` (all that are trained when none is named), `plans`
    or `preset` limit what is compared; `folds` None compares the folds that all of them have finished and predicts with
    every fold that the best one has. Another comparison of the task is waited for, which `say` hears. Raises RunError
    when what is asked for is not trained or validated, TaskError, SettingsError, ImageError, StorageError.
    """
    from .selection.best import find_best

    names, folds = any_of(configurations), fold_names(folds)
    plans = plans_name_of(plans, preset)
    folders, task = folders_of(task, workspace), open_task(task, workspace)
    candidates = trained_models(folders, names, plans)
    with one_after_another_in(folders.results, say):
        return find_best(
            folders, task.labels, candidates, folds, ensembles=ensembles, references=references_of(folders, task),
            file_ending=task.file_ending, reader=task.reader, cases=task.cases, workers=workers, progress=progress,
        )  # fmt: skip


def predict(
    inputs: Sequence[Path | str] | Path | str,
    output: Path | str,
    workspace: WorkspaceReference = None,
    *,
    task: TaskReference | None = None,
    model: Path | str | Model | None = None,
    configuration: str | None = None,
    plans: str | None = None,
    preset: str | None = None,
    folds: Sequence[int | str] | int | str | None = None,
    mirroring: bool = True,
    step: float = 0.5,
    half: bool = False,
    save_probabilities: bool = False,
    overwrite: bool = True,
    previous: Path | str | None = None,
    device: str | None = "auto",
    progress: Progress = silent,
    say: Say = unsaid,
) -> tuple[str, ...]:
    """Segment folders of images, one image, or one file per channel; returns the ids of the predicted cases.

    With a `task` its best configuration or ensemble and post-processing (`best`) is used unless a configuration is
    named; `model` is any model folder or zip of nnU-Net v1 or v2, or what `load_model` made of it. Labels are written on
    each input's own grid, in its file type. `step` is how far the sliding window moves, as a share of the patch (above 0,
    at most 1). `half` takes numbers of 16 bits on a processor that is faster with them. A cascade predicts its earlier
    stage first, or takes that stage's label maps from the folder `previous`.
    Raises SettingsError for arguments that contradict each other, TaskError, ModelError, ImageError, RunError naming the
    cases that failed while the others were finished, OutOfMemoryError, StorageError.
    """
    from .postprocessing import last_step
    from .predicting.cases import find_cases
    from .predicting.files import FileRequest, predict_files, require_output_name

    inputs, output = paths_of(inputs, "an image, one file for each channel, or a folder of images"), path_of(output)
    require_output_name(inputs, output)
    found = model_of(task, model, workspace, configuration, plans, preset, folds)
    cases = find_cases(inputs, found, say)
    if task is not None and configuration is None and (outdated := trained_again(found.folder.parent)):
        say(outdated)
    request = FileRequest(
        output, save_probabilities=save_probabilities, overwrite=overwrite, finish=last_step(found.postprocessing),
        previous=None if previous is None else path_of(previous),
    )  # fmt: skip

    def load():
        """Imports torch, so the first images are read meanwhile."""
        from .engine.devices import choose_device, gpu_memory_gb, release_memory
        from .engine.predictor import Predictor

        chosen = choose_device(device or "auto")
        need = prediction_need(found, cases, chosen.type, probabilities=save_probabilities)
        release_memory(chosen)
        free_gb, _ = gpu_memory_gb(chosen) or (None, None)
        announce(need, say, free_gb, refuse=False)  # a case that does not fit says so itself
        return Predictor(found, device=str(chosen), mirroring=mirroring, step=step, half=half, message=say)

    return predict_files(found, load, cases, request, progress, say)


def _validate(request, save_probabilities: bool, workers: int, progress: Progress, again: bool = False) -> Scores:
    from .engine.validation import validate_fold

    return validate_fold(
        request, save_probabilities=save_probabilities, again=again, workers=workers, progress=progress
    )
