"""Which cases of a task have other files now than those that its trained folds, or predictions, were made of."""

from __future__ import annotations

from ..folders import FoldFolder, TaskFolders
from ..task import Case, Task
from .file_states import FILE_CLOCK_S, Stamps, are_of_one_state, stamps_of
from .made_of import CaseFiles, load_made_of


def corrected_cases(folders: TaskFolders, task: Task) -> tuple[str, ...]:
    """The ids of cases that at least one trained fold has not seen as they are now; raises StorageError, OSError.

    Time and size of the files tell it, so that a copy of the same content with another time counts as well.
    """
    trained = [fold for model in folders.models() for fold in model.folds() if fold.has_weights]
    noted = [(_noted(fold), _began(fold)) for fold in trained]
    return tuple(case.id for case in task.cases if noted and _is_corrected(case, noted))


def has_other_images(case: Case, files: CaseFiles) -> bool:
    """Whether images were replaced since they were predicted; labels do not count, nor what was not noted."""
    noted = [list(stamp) for stamp in files.stamps][: len(case.images)]
    return bool(noted) and not are_of_one_state(noted, stamps_of(case)[: len(case.images)])


def _is_corrected(case: Case, noted: list[tuple[dict[str, Stamps], float]]) -> bool:
    """A file that is missing is no correction."""
    now = stamps_of(case)
    if case.labels is None or not all(now):
        return False
    labels_s = now[-1][0] / 1e9
    return any(
        not are_of_one_state(stamps[case.id], now) if stamps.get(case.id) else labels_s > began + FILE_CLOCK_S
        for stamps, began in noted
    )


def _noted(fold: FoldFolder) -> dict[str, Stamps]:
    """The state of each case's files that a run was made of; none for runs of nnU-Net and of earlier versions."""
    made_of = load_made_of(fold)
    return {files.case_id: [list(stamp) for stamp in files.stamps] for files in made_of.files} if made_of else {}


def _began(fold: FoldFolder) -> float:
    """The settings are written when a training begins or goes on; nnU-Net's runs have only the time of their weights."""
    files = [fold.settings] if fold.settings.is_file() else [path for path in fold.checkpoints if path.is_file()]
    return max((path.stat().st_mtime for path in files), default=float("inf"))
