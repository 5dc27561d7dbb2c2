"""The verbs for what is there already: label maps are scored, averaged and cleaned, tasks and networks are shown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .errors import SettingsError
from .given import path_of, paths_of, several
from .integrity import load_findings
from .labels import LabelSet
from .lookup import (
    TaskReference,
    WorkspaceReference,
    folders_of,
    label_set_beside,
    open_task,
    plan_of,
    reader_beside,
)
from .machine.memory import Say, unsaid
from .postprocessing_rules import PostProcessing
from .progress import Progress, silent
from .scores import Scores


def evaluate(
    predictions: Path | str,
    references: Path | str,
    labels: LabelSet | Sequence[int] | int | None = None,
    *,
    tolerance_mm: float = 1.0,
    workers: int = 2,
    progress: Progress = silent,
    say: Say = unsaid,
) -> Scores:
    """Score a folder of predictions and write summary.json into it.

    `labels` are a task's, or values, or None for those of the dataset.json in or above either folder. Each label gets its
    Dice and IoU (0 to 1, NaN where nobody has it), the voxels behind them, the 95th percentile of the surface distances in
    mm, and the share of the surfaces that agree within `tolerance_mm`. References without a prediction are left out, which
    `say` hears. Raises ImageError for predictions without a reference or on another grid, TaskError when no labels are
    found, SettingsError for `labels` that are none, StorageError.
    """
    from .evaluation import evaluate_folder, evaluate_simple

    predictions, references = path_of(predictions), path_of(references)
    common = {"tolerance_mm": tolerance_mm, "say": say, "workers": workers, "progress": progress}
    if labels is not None and not isinstance(labels, LabelSet):
        values = several(labels, "label values")
        return evaluate_simple(predictions, references, values, **common)
    return evaluate_folder(predictions, references, labels or label_set_beside(predictions, references), **common)


def ensemble(
    inputs: Sequence[Path | str] | Path | str,
    output: Path | str,
    *,
    save_probabilities: bool = False,
    workers: int = 2,
    progress: Progress = silent,
) -> tuple[Path, ...]:
    """Average the probabilities (CASE.npz) of several prediction folders into label maps; returns their files.

    Raises InputError naming the cases whose probabilities are missing, ImageError when their shapes differ, TaskError when
    no dataset.json in or above the folders tells the labels, SettingsError without folders, StorageError.
    """
    from .selection.ensembling import ensemble_folders

    folders = paths_of(inputs, "the folders of predictions to average")
    return ensemble_folders(
        folders, path_of(output), label_set_beside(*folders), reader=reader_beside(*folders),
        save_probabilities=save_probabilities, workers=workers, progress=progress,
    )  # fmt: skip


def postprocess(
    predictions: Path | str,
    output: Path | str | None = None,
    *,
    rules: Path | str | None = None,
    references: Path | str | None = None,
    workers: int = 2,
    progress: Progress = silent,
) -> PostProcessing:
    """Apply post-processing `rules` to a folder, or find the rules that raise the Dice against `references`.

    Returns the rules; with an `output` the post-processed label maps are written there. Raises SettingsError when neither
    or both are given, ModelError for a file that holds no rules, ImageError, TaskError, StorageError.
    """
    from . import postprocessing

    if (rules is None) == (references is None):
        raise SettingsError("Give either rules to apply (--rules FILE) or references to find them (--references DIR).")
    predictions, target = path_of(predictions), None if output is None else path_of(output)
    if rules is not None:
        found = postprocessing.load_postprocessing(path_of(rules))
    else:
        references = path_of(references)
        labels = label_set_beside(predictions, references)
        found = postprocessing.determine_postprocessing(
            predictions, references, labels, workers=workers, progress=progress
        )
    if target:
        postprocessing.apply_postprocessing_to_folder(predictions, target, found, workers=workers, progress=progress)
    return found


def write_report(
    task: TaskReference,
    path: Path | str | None = None,
    workspace: WorkspaceReference = None,
    progress: Progress = silent,
) -> Path:
    """Write the task's report, one self-contained HTML page, and return its path, by default results/<task>/report.html.

    Raises TaskError when there is no such task, StorageError.
    """
    from .report import page

    folders = folders_of(task, workspace)
    target = folders.results / "report.html" if path is None else path_of(path)
    return page.write_report(folders, target, progress, findings=load_findings(folders.findings))


def diagram(
    task: TaskReference,
    configuration: str,
    path: Path | str,
    workspace: WorkspaceReference = None,
    *,
    plans: str | None = None,
    preset: str | None = None,
) -> Path:
    """Draw a configuration's network as SVG, PNG or PDF (by the file's ending) and return the path.

    Raises TaskError, PlanError for a configuration that the plan does not have, SettingsError for another ending,
    StorageError.
    """
    from .report.diagram import draw_network

    folders, task = folders_of(task, workspace), open_task(task, workspace)
    chosen = plan_of(folders, plans, preset)
    return draw_network(
        chosen.configuration(configuration), task.labels, len(task.channels), path_of(path),
        title=f"{folders.name} {configuration}", in_mm=not chosen.is_of_pictures,
    )  # fmt: skip
