"""Models that were trained before cases came or were corrected: set aside as they are, when their task begins again."""

from __future__ import annotations

from pathlib import Path

from ..errors import StorageError
from ..folders import TaskFolders, new_dated_folder
from ..machine.locks import require_free
from ..records import cannot_write, move


def require_nothing_at_work(folders: TaskFolders) -> None:
    """Raises RunError when a fold of the task is being trained or validated, or its models are compared."""
    require_free(folders.results)
    for model in folders.models():
        for fold in model.folds():
            require_free(fold.folder)


def set_models_aside(folders: TaskFolders) -> Path | None:
    """Move all results of the task to nnUNet_results/earlier/DATE/DATASET, where they predict as before.

    Returns that folder, or None when there is nothing to move. Raises RunError while a fold is being trained or models
    are compared, StorageError.
    """
    require_nothing_at_work(folders)
    if not folders.models():
        return None
    dated = new_dated_folder(folders.workspace.earlier)
    target = dated / folders.name  # named as before: predictions look for post-processing below this name
    try:
        move(folders.results, target)
    except OSError as error:
        dated.rmdir()
        raise StorageError(cannot_write(target, error)) from error
    return target
