"""The verbs: one function per capability, called alike by the panel, the command line and the console.

A task is given as `Task`, number ('4'), name ('Dataset004_Hippocampus') or folder; a workspace as a folder,
`Workspace`, or None for nnU-Net's environment variables or ~/NNSegment. Paths are arguments, never global state.
torch is imported inside the functions that need it, so that planning and reading never pay for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from .errors import RunError, SettingsError
from .fingerprint import Fingerprint, compute_fingerprint, load_fingerprint, save_fingerprint
from .folders import LABELS_CSV
from .integrity import Finding, check_task, fix_task, load_findings, save_findings
from .labels import LabelSet
from .locks import only_one_in
from .lookup import (
    TaskReference,
    WorkspaceReference,
    folders_of,
    folds_of,
    label_set_beside,
    model_of,
    open_task,
    plan_of,
    reader_beside,
    references_of,
    workspace_of,
)
from .memory import Say, affordable_workers, announce, unsaid
from .model import Model
from .model.earlier import require_nothing_at_work, set_models_aside
from .planning.plan import CONFIGURATIONS, Plan, load_plan, save_plan, with_configurations
from .planning.presets import find_preset
from .postprocessing_rules import PostProcessing
from .prediction import Prediction
from .preflight import fingerprint_gb, fingerprint_need, prediction_need
from .preparation import Preparation, keep_references, prepare_all
from .progress import Progress, silent
from .records import copy_whole
from .run import Run, TrainingSettings
from .scores import Scores
from .selection.record import Selection
from .task import Task, load_task
from .training_setup import copy_if_there, training_request

__all__ = [
    "best", "check", "convert", "diagram", "ensemble", "evaluate", "extract_fingerprint", "folders_of", "folds_of",
    "open_task", "plan", "plan_of", "postprocess", "predict", "preprocess", "train", "validate", "write_report",
]  # fmt: skip


def convert(
    source: Path | str,
    workspace: WorkspaceReference = None,
    *,
    labels: Path | None = None,
    channels: Sequence[str] = (),
    id: int | None = None,
    name: str | None = None,
    in_place: bool = False,
    overlaps: str = "order",
    workers: int = 2,
    progress: Progress = silent,
) -> Task:
    """Make a task of a Decathlon, nnU-Net, TotalSegmentator, MONAI Label or DICOM folder, or of images and labels.

    `channels` names the channels of plain folders; the name decides how intensities are normalised ('CT', 'T1', …).
    Where named segments overlap the later label wins, or they become "regions", or are refused ("refuse").
    Raises TaskError when the folder is none of these or the number is taken; the source is never changed.
    """
    from .formats import convert as convert_source

    return convert_source(
        Path(source), workspace_of(workspace), labels=labels, channels=channels or None, id=id, name=name, in_place=in_place,
        overlaps=overlaps, workers=workers, progress=progress,
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

    What was mended comes first, marked so.
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
    """The task's fingerprint; read from disk when there is one of these cases, unless `clean`."""
    folders, task = folders_of(task, workspace), open_task(task, workspace)
    if folders.fingerprint.is_file() and not clean:
        stored = load_fingerprint(folders.fingerprint)
        if stored.is_of(case.id for case in task.cases):
            return stored
        say(f"The cases of {task.name} are others than those that were measured; they are measured anew.")
    each = fingerprint_gb(task.cases, len(task.channels))
    workers = affordable_workers(max(1, min(workers, len(task.cases))), each, "Reading a case", say)
    announce(fingerprint_need(each, workers), say)
    found = compute_fingerprint(task, workers=workers, progress=progress)
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
    anew: bool = False,
    workers: int = 2,
    progress: Progress = silent,
    say: Say = unsaid,
) -> Plan:
    """Fingerprint the task if need be, and write its plan, splits and copies of dataset.json and reference labels.

    `clean` measures the task again. `anew` begins again after cases came or were corrected: it measures, too, makes
    the folds of all cases, and sets the trained models aside (`list_models` still finds them, and they predict).
    Raises SettingsError, TaskError, ImageError, PlanError, StorageError, RunError for `anew` while a fold is trained.
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
    made = _keeping_custom_configurations(made, folders.plan(made.name))
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
    configurations: Sequence[str] = (),
    plans: str | None = None,
    preset: str | None = None,
    workers: int = 2,
    progress: Progress = silent,
    say: Say = unsaid,
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
    return [prepare_all(task, folders, chosen, name, workers, progress, say) for name in by_data.values()]


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
    gpus: int = 1,
    workers: int = 2,
    progress: Progress = silent,
    say: Say = unsaid,
) -> Run:
    """Train one fold, preparing the data first if need be, and validate it on its full validation cases.

    `fold` is a number or 'all'. A run that is stopped leaves a valid model and can be resumed. Several `gpus` share
    each batch, one process for each; a script that asks for them needs the usual `if __name__ == "__main__":`.
    """
    from .engine.rank_processes import train_fold_on

    request = training_request(
        task, configuration, fold, workspace, settings=settings, plans=plans, preset=preset,
        resume=resume, pretrained=pretrained, gpus=gpus, workers=workers, progress=progress, say=say,
    )  # fmt: skip
    with only_one_in(request.folder.folder):
        run = train_fold_on(request, gpus, progress)
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
    with only_one_in(request.folder.folder):
        return _validate(request, save_probabilities, workers, progress, again=True)


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
    from .selection.best import find_best

    folders, task = folders_of(task, workspace), open_task(task, workspace)
    name = plans or (find_preset(preset).plans_name if preset else None)
    candidates = [
        model
        for model in folders.models()
        if (not configurations or model.configuration in configurations) and (name in (None, model.plans_name))
    ]
    if not candidates:
        raise RunError(f"{folders.name} has no trained configuration yet; train one with 'nnsegment train'.")
    return find_best(
        folders, task.labels, candidates, folds, ensembles=ensembles, references=references_of(folders, task),
        file_ending=task.file_ending, reader=task.reader, workers=workers, progress=progress,
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
    previous: Path | str | None = None,
    device: str = "auto",
    progress: Progress = silent,
    say: Say = unsaid,
) -> tuple[str, ...]:
    """Segment a folder of images, one image, or one file per channel; returns the ids of the predicted cases.

    With a `task` its best configuration or ensemble and post-processing (`best`) is used unless a configuration is
    named; `model` is any model folder or zip of nnU-Net v1 or v2. Labels are written on each input's own grid, in its file
    type. A cascade predicts its earlier stage first, or takes that stage's label maps from the folder `previous`. Raises
    ModelError, ImageError, and RunError naming the cases that failed while the others were finished.
    """
    from .engine.devices import choose_device, gpu_memory_gb, release_memory
    from .engine.file_prediction import FileRequest, find_cases, predict_files, require_output_name
    from .engine.predictor import Predictor

    inputs, output = [Path(path).expanduser() for path in inputs], Path(output).expanduser()
    require_output_name(inputs, output)
    found = model if isinstance(model, Model) else model_of(task, model, workspace, configuration, plans, preset, folds)
    cases = find_cases(inputs, found)
    request = FileRequest(
        output, save_probabilities=save_probabilities, overwrite=overwrite, finish=_finish(found),
        previous=Path(previous).expanduser() if previous else None,
    )  # fmt: skip
    chosen = choose_device(device)
    need = prediction_need(found, cases, chosen.type, probabilities=save_probabilities)
    release_memory(chosen)
    announce(need, say, (gpu_memory_gb(chosen) or [None])[0], refuse=False)  # a case that does not fit says so itself
    predictor = Predictor(found, device=str(chosen), mirroring=mirroring, step=step, message=say)
    return predict_files(predictor, cases, request, progress)


def evaluate(
    predictions: Path | str,
    references: Path | str,
    labels: LabelSet | Sequence[int] | None = None,
    *,
    tolerance_mm: float = 1.0,
    workers: int = 2,
    progress: Progress = silent,
    say: Say = unsaid,
) -> Scores:
    """Score a folder of predictions and write summary.json into it.

    `labels` are a task's, or values, or None for those of the dataset.json in or above either folder. References
    without a prediction are left out, which `say` hears.
    """
    from .evaluation import evaluate_folder, evaluate_simple

    predictions, references = Path(predictions), Path(references)
    common = {"tolerance_mm": tolerance_mm, "say": say, "workers": workers, "progress": progress}
    if labels is not None and not isinstance(labels, LabelSet):
        return evaluate_simple(predictions, references, labels, **common)
    return evaluate_folder(predictions, references, labels or label_set_beside(predictions, references), **common)


def ensemble(
    inputs: Sequence[Path | str],
    output: Path | str,
    *,
    save_probabilities: bool = False,
    workers: int = 2,
    progress: Progress = silent,
) -> tuple[Path, ...]:
    """Average the probabilities of several prediction folders into label maps; returns their files."""
    from .selection.ensembling import ensemble_folders

    folders = [Path(path) for path in inputs]
    return ensemble_folders(
        folders, Path(output), label_set_beside(*folders), reader=reader_beside(*folders),
        save_probabilities=save_probabilities, workers=workers, progress=progress,
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
        labels = label_set_beside(predictions, Path(references))
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
    target = Path(path) if path else folders.results / "report.html"
    return page.write_report(folders, target, progress, findings=load_findings(folders.findings))


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
    return draw_network(chosen, task.labels, len(task.channels), Path(path), title=f"{folders.name} {configuration}")


def _finish(model: Model) -> Callable[[Prediction], Prediction]:
    """The post-processing that was chosen with the model."""
    from .postprocessing import apply_postprocessing, load_postprocessing

    if model.postprocessing is None:
        return lambda prediction: prediction
    rules = load_postprocessing(model.postprocessing)
    return lambda prediction: replace(prediction, labels=apply_postprocessing(prediction.labels, rules))


def _keeping_custom_configurations(made: Plan, existing: Path) -> Plan:
    """Configurations written by hand into an existing plans file stay, as in nnU-Net."""
    if not existing.is_file():
        return made
    names = {c.name for c in made.configurations}
    before = load_plan(existing)
    for name in set(before.unsupported) - {*names, *CONFIGURATIONS}:
        before.configuration(name)  # raises: writing the plan without it would lose it
    own = [c.name for c in before.configurations if c.name not in {*names, *CONFIGURATIONS}]
    return with_configurations(made, before, own)


def _validate(request, save_probabilities: bool, workers: int, progress: Progress, again: bool = False) -> Scores:
    from .engine.validation import validate_fold

    return validate_fold(
        request, save_probabilities=save_probabilities, again=again, workers=workers, progress=progress
    )
