"""What callers give, in the form that the work takes: `~` in paths, one value where several may be, whole numbers."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sized
from numbers import Integral
from pathlib import Path, PurePath
from typing import TypeVar

from .errors import SettingsError

T = TypeVar("T")
ALL = "all"
"""The fold that trains on every case."""
_MOST_DIGITS = 18
"""Of a number in a text; Python refuses to read thousands of them."""


def path_of(value: Path | str) -> Path:
    """The path, with `~` as the user's home; raises SettingsError for something that names no file or folder."""
    if not isinstance(value, (str, os.PathLike)) or value == "" or "\0" in str(value):
        raise SettingsError(f"Expected the path of a file or folder, found {value!r:.60}; give it as text or Path.")
    return expanded(value)


def expanded(value: Path | str) -> Path:
    """The path with `~` as the user's home; Path's own way fails where there is no such user, as for '~$scan.nrrd'."""
    return Path(os.path.expanduser(value))


def several(values: T | Iterable[T], what: str) -> tuple[T, ...]:
    """The values as a tuple; a single text, path or number is one of them, not its letters.

    Raises SettingsError when there is none, or nothing that can be listed; `what` names them in the sentence.
    """
    if isinstance(values, (str, PurePath, Integral)):
        return (values,)
    found = tuple(values) if isinstance(values, Iterable) else ()
    if not found:
        raise SettingsError(f"Expected {what}, found {_shown(values)}; give at least one.")
    return found


def any_of(values: T | Iterable[T] | None) -> tuple[T, ...]:
    """The same where nothing need be given."""
    is_nothing = values is None or (isinstance(values, Sized) and len(values) == 0)
    return () if is_nothing else several(values, "a name or several names")


def paths_of(values: Path | str | Iterable[Path | str], what: str) -> tuple[Path, ...]:
    """One or several paths, with `~` as the user's home; raises SettingsError."""
    return tuple(path_of(value) for value in several(values, what))


def is_whole(value: object) -> bool:
    """Whether a value is a whole number, Python's or NumPy's; truth values are none."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def whole_number(name: str, value: object, least: int) -> int:
    """A whole number from `least`, also as digits in a text; raises SettingsError naming the argument."""
    if (is_whole(value) or is_digits(value)) and int(value) >= least:
        return int(value)
    raise SettingsError(f"{name} should be a whole number from {least}, found {_shown(value)}; correct it.")


def workers_for(items: int, workers: object) -> int:
    """At most one worker for each item, and at least one; raises SettingsError for what is no number."""
    return max(1, min(whole_number("workers", workers, 0), items))


def fold_name(fold: object) -> int | str:
    """A fold as a number or 'all'; raises SettingsError for anything else."""
    if isinstance(fold, str) and fold == ALL:
        return ALL
    if (is_whole(fold) or is_digits(fold)) and int(fold) >= 0:
        return int(fold)
    raise SettingsError(f"A fold is a number from 0, or 'all', found {_shown(fold)}.")


def fold_names(folds: object) -> tuple[int | str, ...] | None:
    """One or several folds as numbers or 'all'; None, for all that are trained, stays None; raises SettingsError."""
    return None if folds is None else tuple(map(fold_name, several(folds, "a fold or several folds")))


def is_digits(value: object) -> bool:
    """Whether a value is a text that Python reads as a whole number; '²' and thousands of digits are none."""
    return isinstance(value, str) and value.isdecimal() and len(value) <= _MOST_DIGITS


def _shown(value: object) -> str:
    return f"{value!r:.60}"
