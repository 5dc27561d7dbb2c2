"""A run that goes on: with the training cases that it was begun with, and telling which files changed since."""

from __future__ import annotations

from pathlib import Path

from ..errors import counted, some
from ..folders import FoldFolder
from ..folds import Fold
from ..machine.memory import Say
from ..provenance.made_of import load_made_of, require_same_training, require_unseen
from ..provenance.predicted_by import changed_since_predicted
from ..run import Run


def require_same_cases(folder: FoldFolder, fold: Fold, task: str, trains: bool) -> None:
    """Raises RunError when a run cannot go on, or be validated, with the cases that the fold has now."""
    require_unseen(folder, fold.validation)
    if trains:
        require_same_training(folder, fold.train, task)


def tell_changed_files(run: Run, prepared: Path, previous_stage: Path | None, say: Say) -> None:
    """Say which cases are not what the run was begun or validated with; corrections are no reason to end it.

    In a cascade `previous_stage` is the folder of its inputs.
    """
    made_of = load_made_of(run.folder)
    if made_of and (changed := made_of.changed(prepared)):
        then = (
            "its weights were trained on them as they were, and 'nnsegment train' without --resume begins again"
            if run.finished
            else "training goes on with them as they are now"
        )
        say(f"{_files_of(changed, 'training case')} changed since this run was begun; {then}.")
    if changed := changed_since_predicted(run.folder, prepared, previous_stage):
        also = ", or what the previous stage makes of them," if previous_stage else ""
        say(f"{_files_of(changed, 'validation case')}{also} changed; validated anew.")


def _files_of(case_ids: list[str], what: str) -> str:
    return f"Images or labels of {counted(len(case_ids), what)} ({some(case_ids)})"
