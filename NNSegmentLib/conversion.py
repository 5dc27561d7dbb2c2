"""Tasks out to other programs, and what the command `convert` says about what it did."""

from __future__ import annotations

from pathlib import Path

from .cases import load_origin
from .errors import SettingsError, counted
from .formats.export_v1 import ExportedTask, export_v1
from .given import path_of
from .lookup import TaskReference, WorkspaceReference, open_task, workspace_of
from .progress import Progress, silent
from .task import Task

_SHOWN = 10
"""More sentences about cases than this are left to cases.json."""


def export_task(
    task: TaskReference,
    output: Path | str | None = None,
    workspace: WorkspaceReference = None,
    *,
    to: str = "v1",
    workers: int = 2,
    progress: Progress = silent,
) -> ExportedTask:
    """Write a task as another program's data set; `to` is "v1" (nnU-Net's TaskXXX_Name), v2's it is already.

    It appears in the folder `output`, whole or not at all, by default where nnU-Net v1 looks. Raises TaskError,
    ImageError, StorageError, and SettingsError for another `to`.
    """
    if to != "v1":
        raise SettingsError(f'Tasks can be written for "v1" (nnU-Net version 1), found {to!r}.')
    target = None if output is None else path_of(output)
    return export_v1(open_task(task, workspace), target, workspace_of(workspace), workers=workers, progress=progress)


def describe_conversion(task: Task) -> tuple[dict, str]:
    """The result of a conversion as JSON values and as text, with what had to be done to the cases."""
    notes = [f"{case.id}: {fix}" for case in load_origin(task.folder).cases for fix in case.fixes]
    lines = [
        f"{task.name}: {counted(len(task.cases), 'case')}, channels {', '.join(c.name for c in task.channels)}, "
        f"labels {', '.join(label.name for label in task.labels.foreground)}.",
        *notes[:_SHOWN],
        *([f"… and {len(notes) - _SHOWN} more sentences like these in cases.json."] if len(notes) > _SHOWN else ()),
        f"It is in {task.folder}.",
    ]
    return {"task": task.name, "folder": task.folder, "cases": len(task.cases), "notes": notes}, "\n".join(lines)


def describe_export(exported: ExportedTask) -> tuple[ExportedTask, str]:
    """The result of an export, and the same as text."""
    lines = [
        f"{exported.folder.name}: {counted(exported.cases, 'case')}.",
        *exported.notes,
        f"It is in {exported.folder}.",
    ]
    return exported, "\n".join(lines)
