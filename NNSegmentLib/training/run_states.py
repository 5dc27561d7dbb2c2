"""How far every run of a plan is, configurations × folds, read from the files that the runs leave."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from ..errors import TaskError
from ..folders import FoldFolder, TaskFolders
from ..folds import load_folds, make_folds
from ..machine.locks import holder
from ..planning.plan import Plan
from ..run import EpochFinished, Failed, recent_events
from ..scores import load_scores
from ..task import Task

ALL_CASES = "all"
"""The fold that trains on every case and has no validation."""


class RunState(StrEnum):
    """How far a run is."""

    NONE = "none"
    RUNNING = "running"
    STOPPED = "stopped"
    FAILED = "failed"
    TRAINED = "trained"
    VALIDATED = "validated"


@dataclass(frozen=True)
class RunStatus:
    """One cell of the grid of runs."""

    configuration: str
    fold: int | str
    folder: FoldFolder
    state: RunState
    last: EpochFinished | None = None
    """The newest epoch."""
    dice: float | None = None
    """Foreground Dice of the validation on whole cases."""
    failure: str = ""

    @property
    def can_resume(self) -> bool:
        """Whether there is something to go on from."""
        unfinished = self.state in (RunState.STOPPED, RunState.FAILED)
        return unfinished and (self.folder.checkpoint_latest.is_file() or self.folder.checkpoint_best.is_file())


def run_statuses(folders: TaskFolders, task: Task, plan: Plan) -> tuple[RunStatus, ...]:
    """The status of every run that a plan allows: for each configuration its folds, then 'all'."""
    names = [*range(fold_count(folders, task)), ALL_CASES]
    return tuple(
        run_status(folders.model(plan.name, configuration.name).fold(fold), configuration.name, fold)
        for configuration in plan.configurations
        for fold in names
    )


def fold_count(folders: TaskFolders, task: Task) -> int:
    """How many folds the cross-validation has, without writing the splits."""
    if folders.splits.is_file():
        return len(load_folds(folders.splits))
    return len(make_folds([case.id for case in task.cases])) if len(task.cases) > 1 else 0


def run_status(folder: FoldFolder, configuration: str, fold: int | str) -> RunStatus:
    """The status of one run."""
    recent = recent_events(folder.events)
    last = next((event for event in reversed(recent) if isinstance(event, EpochFinished)), None)
    dice = validation_dice(folder.summary)
    failure = recent[-1].text if recent and isinstance(recent[-1], Failed) else ""
    state = _state(folder, dice, failure)
    return RunStatus(configuration, fold, folder, state, last, dice, failure)


def _state(folder: FoldFolder, dice: float | None, failure: str) -> RunState:
    if folder.folder.is_dir() and holder(folder.folder) is not None:
        return RunState.RUNNING
    if failure:
        return RunState.FAILED
    if folder.checkpoint_final.is_file():
        return RunState.TRAINED if dice is None else RunState.VALIDATED
    begun = folder.checkpoint_latest.is_file() or folder.checkpoint_best.is_file() or folder.events.is_file()
    return RunState.STOPPED if begun else RunState.NONE


def validation_dice(summary: Path) -> float | None:
    """Foreground Dice of a summary.json; None while there is none."""
    try:
        return _dice_of(summary, summary.stat().st_mtime_ns)
    except (OSError, TaskError):
        return None


@functools.lru_cache(maxsize=256)
def _dice_of(summary: Path, changed: int) -> float:
    """`changed` makes a rewritten file be read again; a panel asks once a second."""
    return load_scores(summary).dice
