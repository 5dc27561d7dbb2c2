"""What the folder of a new task is called: 'Dataset004_Hippocampus', nnU-Net's rule."""

from __future__ import annotations

import re
import unicodedata

from .errors import TaskError
from .folders import DATASET_NAME, Workspace
from .given import is_whole

_NUMBERED = re.compile(r"^(?:Task|Dataset)0*(\d+)_(.+)$")
_LARGEST_NUMBER = 999
_GERMAN = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "Ä": "Ae", "Ö": "Oe", "Ü": "Ue", "ß": "ss", "ẞ": "SS"})


def new_task_name(workspace: Workspace, name: str, number: int | None = None) -> str:
    """The name of a task's folder; without a number it takes that of a name like 'Task04_Heart', else a free one.

    Raises TaskError for a number that is taken or impossible, and for a name of which nothing can be written.
    """
    own, text = split_name(name)
    if number is None:
        number = workspace.free_id() if own is None else own
    _require_free(workspace, number)
    if not is_writable(text):
        raise TaskError(f"A task's name needs letters a–z or digits, found {name!r}; give another name.")
    return f"Dataset{number:03d}_{_in_latin(text)}"


def split_name(text: str) -> tuple[int | None, str]:
    """'Task04_Heart' → (4, 'Heart'), 'Heart' → (None, 'Heart')."""
    found = _NUMBERED.match(text)
    return (int(found.group(1)), found.group(2)) if found else (None, text)


def is_writable(text: str) -> bool:
    """Whether something is left of a name in the letters that nnU-Net's folders are named in."""
    return re.search("[A-Za-z0-9]", _in_latin(text)) is not None


def _in_latin(text: str) -> str:
    """'Größe Straße' → 'Groesse_Strasse': nnU-Net and old servers know no other letters in names of folders."""
    german = unicodedata.normalize("NFC", text).translate(_GERMAN)
    plain = "".join(sign for sign in unicodedata.normalize("NFKD", german) if not unicodedata.combining(sign))
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", plain).strip("_.")  # Windows drops a dot at the end


def _require_free(workspace: Workspace, number: int) -> None:
    if not (is_whole(number) and 0 <= number <= _LARGEST_NUMBER):
        raise TaskError(
            f"A task's number is a whole number from 0 to {_LARGEST_NUMBER}, found {number!r}; give another one, or none "
            "to take the next that is free."
        )
    for taken in workspace.task_names():
        if int(DATASET_NAME.match(taken).group(1)) == number:
            where = [root / taken for root in (workspace.raw, workspace.preprocessed, workspace.results)]
            place = next(path for path in where if path.is_dir())
            raise TaskError(
                f"The number {number} is taken by {place}; give another number (the next free one is "
                f"{workspace.free_id()}), or delete that folder first."
            )
