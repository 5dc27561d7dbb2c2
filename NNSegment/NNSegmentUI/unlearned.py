"""Which cases the trained models do not know as they are now: new ones, and those that were corrected since."""

from __future__ import annotations

from dataclasses import dataclass

from slicer.i18n import tr as _


@dataclass(frozen=True)
class Unlearned:
    """The ids of cases that the trained folds of a task have not seen as they are now."""

    new: tuple[str, ...] = ()
    """In none of the folds."""
    corrected: tuple[str, ...] = ()
    """In the folds, with files of another time or size than those that a trained fold was made of."""

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
            sentences.append(_("Corrected or replaced since the training: {cases}.").format(cases=some(self.corrected)))
        return " ".join(sentences)


def unlearned_cases(folders, task) -> Unlearned:
    """What came or was changed since the task was trained; raises TaskError, StorageError for damaged files, OSError."""
    from NNSegmentLib.lookup import cases_in_no_fold
    from NNSegmentLib.provenance.corrected import corrected_cases

    new = cases_in_no_fold(folders, task)
    return Unlearned(new, tuple(case_id for case_id in corrected_cases(folders, task) if case_id not in new))
