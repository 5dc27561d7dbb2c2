"""The models that can be applied: those of the open task first, then the others of the workspace, then any folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from slicer.i18n import tr as _

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


def model_choices(context, path: str = "") -> tuple[ModelChoice, ...]:
    """What to choose from; `path` is the folder or zip that the user named."""
    choices = [*_of_task(context), *_of_others(context)]
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


def _of_task(context) -> list[ModelChoice]:
    if context.task is None:
        return []
    name, folders = context.task.name, context.folders
    found = []
    if folders.selection.is_file():
        found.append(ModelChoice(f"{name}/best", _("Best of this task"), ("-t", name), folders.results))
    entries = [entry for entry in _entries(context) if entry.task == name]
    return found + [_entry(entry, own=True) for entry in entries if not entry.set_aside] + _earlier(entries, own=True)


def _of_others(context) -> list[ModelChoice]:
    own = context.task.name if context.task else ""
    entries = [entry for entry in _entries(context) if entry.task != own]
    return [_entry(entry, own=False) for entry in entries if not entry.set_aside] + _earlier(entries, own=False)


def _earlier(entries: Sequence, own: bool) -> list[ModelChoice]:
    """What was set aside when its task began again: the best of it where one was chosen, else each model."""
    from NNSegmentLib.folders import SELECTION

    chosen: dict[str, ModelChoice] = {}
    for entry in entries:
        if not entry.set_aside:
            continue
        place = entry.folder.parent
        if (place / SELECTION).is_file():
            title = _("Best until {date}").format(date=entry.until)
            title = title if own else f"{entry.task}: {title}"
            chosen[str(place)] = ModelChoice(str(place), title, ("-m", str(place)), place)
        else:
            chosen[str(entry.folder)] = _entry(entry, own)
    return list(chosen.values())


def _entries(context) -> Sequence:
    from NNSegmentLib.errors import NNSegmentError
    from NNSegmentLib.exchange import list_models

    if context.workspace is None:
        return ()
    try:
        return list_models(context.workspace)
    except NNSegmentError as error:
        context.say(str(error), "warning")
        return ()


def _entry(entry, own: bool) -> ModelChoice:
    usual = entry.plans == "nnUNetPlans"
    name = entry.configuration if usual else f"{entry.configuration} ({entry.plans})"
    name += _(" until {date}").format(date=entry.until) if entry.set_aside else ""
    title = name if own else f"{entry.task}: {name}"
    return ModelChoice(str(entry.folder), title, ("-m", str(entry.folder)), entry.folder, entry.configuration)
