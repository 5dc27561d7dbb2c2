"""The models that can be applied: those of the open task first, then the others of the workspace, then any folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from slicer.i18n import tr as _

from .context import cannot_read

OTHER = "other"


@dataclass(frozen=True)
class ModelChoice:
    """One entry of the list of models."""

    key: str
    """Stays the same while the list changes."""
    title: str
    words: tuple[str, ...]
    """What names it on the command line."""
    place: Path | None
    """Its folder or zip; None while the user has not chosen one."""
    configuration: str | None = None
    task: str = ""
    is_set_aside: bool = False
    """Whether its task began again without it."""


def model_choices(context, path: str = "") -> tuple[ModelChoice, ...]:
    """What to choose from; `path` is the folder or zip that the user named."""
    choices = workspace_choices(context.workspace, context.task.name if context.task else "", context.say)
    words = ("-m", path) if path else ()
    return (*choices, ModelChoice(OTHER, _("Folder or zip …"), words, Path(path) if path else None))


def read_card(choice: ModelChoice):
    """(card, "") of a model, or (None, why not)."""
    from NNSegmentLib.errors import NNSegmentError
    from NNSegmentLib.model.card import read_card as read

    if choice.place is None:
        return None, _("Choose a model folder or zip.")
    try:
        return read(choice.place, choice.configuration), ""
    except NNSegmentError as error:
        return None, str(error)


def workspace_choices(workspace, own: str = "", say=None) -> list[ModelChoice]:
    """Per task what 'best' chose and every trained configuration, those of the task `own` first; then what was set aside.

    `say` hears why the models cannot be read.
    """
    entries = _entries(workspace, say)
    places = dict.fromkeys(entry.folder.parent for entry in entries)
    found = [
        choice
        for place in places
        for choice in _of_place(place, [entry for entry in entries if entry.folder.parent == place], own)
    ]
    return sorted(found, key=lambda choice: (choice.task != own, choice.is_set_aside))


def _of_place(place: Path, entries: Sequence, own: str) -> list[ModelChoice]:
    """One folder of models: the selection, and the models themselves, but where they were set aside only one of both."""
    from NNSegmentLib.folders import SELECTION

    first = entries[0]
    is_compared, is_set_aside = (place / SELECTION).is_file(), bool(first.set_aside)
    found = []
    if is_compared:
        title = _("Best of this task") if first.task == own else _("{task}: best").format(task=first.task)
        words = ("-m", str(place)) if is_set_aside or first.task != own else ("-t", own)
        found.append(ModelChoice(str(place), title + _until(first), words, place, None, first.task, is_set_aside))
    return found + ([] if is_compared and is_set_aside else [_of_entry(entry, own) for entry in entries])


def _of_entry(entry, own: str) -> ModelChoice:
    usual = entry.plans == "nnUNetPlans"
    name = entry.configuration if usual else f"{entry.configuration} ({entry.plans})"
    title = (name if entry.task == own else f"{entry.task}: {name}") + _until(entry)
    words, folder = ("-m", str(entry.folder)), entry.folder
    return ModelChoice(str(folder), title, words, folder, entry.configuration, entry.task, bool(entry.set_aside))


def _until(entry) -> str:
    return _(" until {date}").format(date=entry.until) if entry.set_aside else ""


def _entries(workspace, say) -> Sequence:
    from NNSegmentLib.errors import NNSegmentError
    from NNSegmentLib.exchange import list_models

    if workspace is None:
        return ()
    try:
        return list_models(workspace)
    except NNSegmentError as error:
        if say is not None:
            say(str(error), "warning")
        return ()
    except OSError as error:
        if say is not None:
            say(cannot_read(workspace.results.parent, error), "error")
        return ()
