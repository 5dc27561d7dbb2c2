"""The whole journey on a small task: sample phantoms made on the spot, or the user's own data."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import pipeline, results
from .errors import counted
from .folders import TaskFolders, Workspace
from .progress import Progress, silent
from .run import Run
from .sample import make_sample_task
from .task import Task, find_images
from .terminal import duration
from .training.budget import default_settings
from .training.length import too_few_steps

FOLD_SECONDS = 75.0
FOLDS = (0, 1)
COARSENESS = 1.7
"""Voxels of 1.5 to 2.4 mm: a processor without fast bfloat16 makes 270 steps a fold then, and about 55 with voxels of 1 mm."""
SAMPLE_ID = 999


@dataclass(frozen=True)
class DemoOutcome:
    """What the demo reached."""

    task: str
    crossvalidation_dice: float
    test_dice: float | None
    """Dice on the test images, when they have references."""
    predictions: Path
    report: Path
    seconds: float
    warning: str = ""
    """That the trainings were too short to learn much."""

    def text(self) -> str:
        """The closing words on the terminal."""
        test = f", test images {self.test_dice:.3f}" if self.test_dice is not None else ""
        lines = [
            f"\nDone in {duration(self.seconds)}. Dice: cross-validation {self.crossvalidation_dice:.3f}{test}.",
            self.warning,
            f"Predictions: {self.predictions}",
            f"Report:      {self.report}",
        ]
        return "\n".join(filter(None, lines))


def run_demo(
    folder: Path,
    *,
    data: Path | None = None,
    seconds: float | None = None,
    say: Callable[[str], None] = print,
    progress: Progress = silent,
) -> DemoOutcome:
    """Convert, check, plan, train two folds, select, predict and report; everything lands in `folder`, your data's below it."""
    started = time.monotonic()
    folder = Path(folder).absolute() / (Path(data).absolute().name if data else "")
    workspace = Workspace.at(folder)
    say(f"1. Task: {'your data' if data else 'phantoms of two structures, made on the spot'}")
    task = _task(folder, workspace, data, progress)
    findings = pipeline.check(task, workspace, progress=progress)
    say(f"   {task.name}: {counted(len(task.cases), 'case')}; the check found {len(findings) or 'nothing'} to look at")
    plan = pipeline.plan(task, workspace, preset="small", progress=progress)
    configuration = "3d_fullres" if any(c.name == "3d_fullres" for c in plan.configurations) else "2d"
    chosen = plan.configuration(configuration)
    say(f"2. Plan: {configuration}, patch {'×'.join(map(str, chosen.patch_size))}, batch {chosen.batch_size}")
    runs = _train(task, workspace, configuration, plan, seconds or FOLD_SECONDS, say, progress)
    selection = pipeline.best(task, workspace, plans=plan.name, folds=FOLDS, progress=progress)
    say(f"4. Cross-validation:\n{selection.table()}")
    folders = pipeline.folders_of(task, workspace)
    predictions, test_dice = _predict(task, folders, say, progress)
    report = results.write_report(task, folder / "report.html", workspace, progress)
    passed = time.monotonic() - started
    return DemoOutcome(task.name, selection.dice_after, test_dice, predictions, report, passed, too_few_steps(runs))


def _task(folder: Path, workspace: Workspace, data: Path | None, progress: Progress) -> Task:
    existing = [name for name in workspace.task_names() if (workspace.raw / name).is_dir()]
    if existing:
        return pipeline.open_task(existing[0], workspace)
    source = data or _sample(folder / "sample")
    return pipeline.convert(
        source, workspace, id=None if data else SAMPLE_ID, name=None if data else "Sample", progress=progress
    )


def _sample(folder: Path) -> Path:
    """The sample task, made anew unless an earlier demo left it whole."""
    return folder if (folder / "dataset.json").is_file() else make_sample_task(folder, coarseness=COARSENESS)


def _train(task, workspace, configuration, plan, seconds: float, say, progress: Progress) -> list[Run]:
    runs, settings = [], default_settings(plan, time_s=seconds)
    for fold in FOLDS:
        say(f"3. Training fold {fold} for {duration(seconds)}")
        runs.append(
            pipeline.train(task, configuration, fold, workspace, settings=settings, plans=plan.name, progress=progress)
        )
    return runs


def _predict(task: Task, folders: TaskFolders, say, progress: Progress) -> tuple[Path, float | None]:
    images, references = task.folder / "imagesTs", task.folder / "labelsTs"
    predictions = folders.workspace.raw.parent / "predictions"
    if not find_images(images, task.file_ending):
        images = task.folder / "imagesTr"
    pipeline.predict([images], predictions, folders.workspace, task=task.name, progress=progress)
    say(f"5. Predicted {images.name} with what was best")
    if not references.is_dir() or images.name != "imagesTs":
        return predictions, None
    scores = results.evaluate(predictions, references, task.labels, progress=progress)
    per_label = ", ".join(f"{title} {m.dice:.3f}" for title, m in zip(scores.titles, scores.mean, strict=True))
    say(f"   Dice on {images.name}: {per_label}")
    return predictions, scores.dice
