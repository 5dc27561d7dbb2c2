"""What can go wrong, as a tree; every message says what was expected, what was found and what to do.

NNSegmentError
├── InputError          what the user gave cannot be used (exit code 2)
│   ├── ImageError          a file that is no image, holds NaN, or lies on another grid than its neighbours
│   ├── TaskError           a folder that is no task, a task whose parts contradict each other
│   ├── PlanError           a plan that is missing, unreadable or does not fit the task
│   ├── ModelError          a model folder, zip or checkpoint that cannot be used
│   └── SettingsError       a training setting or command-line value outside its range
└── WorkError           the work itself failed (exit code 1)
    ├── RunError            training, validation or selection cannot go on
    ├── OutOfMemoryError    memory would not suffice or did not
    ├── MissingPackageError a Python package that the work is done with is not installed
    └── StorageError        a file cannot be written
Stopping on request is an event, not an error.

    try:
        plan = nns.plan(task)
    except nns.NNSegmentError as error:
        print(error)
"""

from __future__ import annotations

from collections.abc import Sequence


class NNSegmentError(Exception):
    """Base of everything this library raises on purpose; its text is one sentence for the user."""

    exit_code = 1


class InputError(NNSegmentError):
    """What the user gave cannot be used."""

    exit_code = 2


class ImageError(InputError):
    """An image or label file cannot be used."""


class TaskError(InputError):
    """A task (data set) cannot be used."""


class PlanError(InputError):
    """A plan cannot be made or used."""


class ModelError(InputError):
    """A model folder, zip or checkpoint cannot be used."""


class SettingsError(InputError):
    """A setting is outside what is possible."""


class WorkError(NNSegmentError):
    """The work itself failed."""


class RunError(WorkError):
    """A training run, validation or selection cannot go on."""


class OutOfMemoryError(WorkError):
    """The work needs more memory than there is."""


class MissingPackageError(WorkError, ModuleNotFoundError):
    """A Python package that the work is done with is not installed; `name` is its name."""


class StorageError(WorkError):
    """A file or folder cannot be written."""


def require_choice(name: str, value: object, known: Sequence[str]) -> None:
    """Raises SettingsError when the argument `name` is none of the words that are known for it."""
    if value not in known:
        raise SettingsError(f"{name} should be one of {', '.join(known)}, found {value!r:.60}; choose one of these.")


def some(names: Sequence[object], most: int = 5) -> str:
    """A list for a sentence, cut off after a few names: 'a, b and 7 more'."""
    shown = ", ".join(str(name) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def counted(n: int, name: str, ending: str = "s") -> str:
    """'1 case', '3 cases'; `ending` makes the plural."""
    return f"{n} {name}{ending * (n != 1)}"
