"""Which cases the trained models do not know as they are now: new ones, and those that were corrected since."""

from __future__ import annotations

from dataclasses import dataclass

from slicer.i18n import tr as _

FILE_CLOCK_S = 2.0
"""Precision with which some file systems note times."""


@dataclass(frozen=True)
class Unlearned:
    """The ids of cases that the last training of a task has not seen as they are now."""

    new: tuple[str, ...] = ()
    """In none of the folds."""
    corrected: tuple[str, ...] = ()
    """In the folds, with a label map that was changed since."""

    def __bool__(self) -> bool:
        return bool(self.new or self.corrected)

    def text(self) -> str:
        """A sentence about each kind; empty without any."""
        from NNSegmentLib.errors import some

        sentences = []
        if self.new:
            sentences.append(
                _("New since the training, and in none of its folds: {cases}.").format(cases=some(self.new))
            )
        if self.corrected:
            sentences.append(_("Corrected since the last training: {cases}.").format(cases=some(self.corrected)))
        return " ".join(sentences)


def unlearned_cases(folders, task) -> Unlearned:
    """What came or was changed since the task was trained; raises TaskError for damaged folds, OSError."""
    from NNSegmentLib.lookup import cases_in_no_fold

    new, began = cases_in_no_fold(folders, task), _last_beginning(folders)
    changed = [case.id for case in task.cases if began is not None and _changed(case) > began + FILE_CLOCK_S]
    return Unlearned(new, tuple(case_id for case_id in changed if case_id not in new))


def _changed(case) -> float:
    """When the label map of a case was last written; a case without one was not corrected."""
    return case.labels.stat().st_mtime if case.labels is not None and case.labels.is_file() else 0.0


def _last_beginning(folders) -> float | None:
    """When a training last began, in which the label maps were read; None where nothing was trained."""
    from NNSegmentLib.machine.locks import holder

    folds = [fold for model in folders.models() for fold in model.folds() if fold.has_weights or holder(fold.folder)]
    return max((time for fold in folds for time in _beginning(fold)), default=None)


def _beginning(fold) -> list[float]:
    """The settings are written when a training begins or goes on; nnU-Net's runs have only the time of their weights."""
    checkpoints = (fold.checkpoint_final, fold.checkpoint_best, fold.checkpoint_latest)
    files = [fold.settings] if fold.settings.is_file() else [path for path in checkpoints if path.is_file()]
    return [path.stat().st_mtime for path in files]
