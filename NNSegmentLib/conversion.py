"""Tasks out to other programs, and what the command `convert` says about what it did."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .cases import ValueChange, load_origin
from .errors import SettingsError, counted
from .formats.export_v1 import ExportedTask, export_v1
from .given import path_of
from .labels import LabelSet
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
    origin = load_origin(task.folder)
    remarks = [*_renumbering(origin.values_changed, task.labels), *origin.remarks]
    notes = [f"{case.id}: {fix}" for case in origin.cases for fix in case.fixes]
    lines = [
        f"{task.name}: {counted(len(task.cases), 'case')}, channels {', '.join(c.name for c in task.channels)}, "
        f"labels {', '.join(label.name for label in task.labels.foreground)}.",
        *remarks,
        *notes[:_SHOWN],
        *([f"… and {len(notes) - _SHOWN} more sentences like these in cases.json."] if len(notes) > _SHOWN else ()),
        f"It is in {task.folder}.",
    ]
    values = {"task": task.name, "folder": task.folder, "cases": len(task.cases), "notes": [*remarks, *notes]}
    return values, "\n".join(lines)


def describe_export(exported: ExportedTask) -> tuple[ExportedTask, str]:
    """The result of an export, and the same as text."""
    lines = [
        f"{exported.folder.name}: {counted(exported.cases, 'case')}.",
        *exported.notes,
        f"It is in {exported.folder}.",
    ]
    return exported, "\n".join(lines)


def _renumbering(changes: Sequence[ValueChange], labels: LabelSet) -> list[str]:
    """What became of the label values; whoever scores with the files they came from would get a Dice of 0."""
    if not changes:
        return []
    names = {value: label.name for label in labels.foreground for value in label.values}
    became = ", ".join(f"{c.before} became {c.after} ({names.get(c.after, 'no label')})" for c in changes[:_SHOWN])
    more = f" and {len(changes) - _SHOWN} more were renumbered" if len(changes) > _SHOWN else ""
    one = len(changes) == 1
    return [
        f"The value{'' if one else 's'} {became}{more}: nnU-Net numbers labels 0, 1, 2, …; predictions hold the new "
        f"value{'' if one else 's'}, so score them with labelsTr, not with the files that were converted."
    ]
