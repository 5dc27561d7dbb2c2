"""A training run on disk: its settings, its events, its stop request. No torch here; the panel reads these files."""

from __future__ import annotations

import dataclasses
import functools
import io
import json
import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from .errors import SettingsError
from .folders import FoldFolder
from .records import from_json, open_at_end, patiently, read_json, take_declared_kinds, to_json, write_json

OPTIMIZERS = ("sgd", "adamw")
LOSSES = ("dice_ce", "ce", "dice", "dice_topk", "topk")
SCHEDULES = ("poly", "cosine", "constant")
AUGMENTATIONS = ("default", "strong", "light", "none", "batchgenerators")
_WORDS = {"optimizer": OPTIMIZERS, "loss": LOSSES, "schedule": SCHEDULES, "augmentation": AUGMENTATIONS}
_RANGES: tuple[tuple[tuple[str, ...], Callable[[Any], bool], str], ...] = (
    (("epochs", "iterations_per_epoch", "batch_size"), lambda n: n >= 1, "at least 1"),
    (("validation_iterations", "warmup_steps", "threads"), lambda n: n >= 0, "at least 0"),
    (("loader_workers",), lambda n: n >= -1, "at least 0, or -1 to have it chosen"),
    (("time_s",), lambda s: 0 < s < math.inf, "more than 0 seconds"),
    (("learning_rate",), lambda x: 0 < x < math.inf, "a number above 0"),
    (("gradient_clip",), lambda x: x > 0, "a number above 0, infinity for none"),
    (("weight_decay",), lambda x: 0 <= x < math.inf, "a number from 0"),
    (("checkpoint_minutes",), lambda x: x >= 0, "a number from 0"),
    (("momentum", "weight_averaging"), lambda x: 0 <= x < 1, "at least 0 and below 1"),
    (("foreground_fraction",), lambda x: 0 <= x <= 1, "between 0 and 1"),
    (("validation_step",), lambda x: 0 < x <= 1, "above 0 and at most 1"),
    (
        ("mirror_axes",),
        lambda axes: len(set(axes)) == len(axes) and {*axes} <= {0, 1, 2},
        "different axes of 0, 1 and 2",
    ),
    (("device",), bool, "a device such as 'auto', 'cuda' or 'cpu'"),
)
"""Fields, what they may be unless None, and how to call that; no comparison with NaN holds."""
HIGHEST_DRAWN = 1e30
"""Of a loss that a curve can show; that of a failed training may be any number."""
_TAIL_BYTES = 131072
"""Of an events file that are read to know how a run is now; the files of long trainings are large."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingSettings:
    """How to train; the defaults are nnU-Net's (method section 5.1).

    What nnU-Net does with a trainer class is a field here: `epochs=250` for nnUNetTrainer_250epochs,
    `mirror_axes=()` for NoMirroring, `loss='ce'` for CELoss, … Raises SettingsError naming the field that cannot be.
    """

    epochs: int = 1000
    iterations_per_epoch: int = 250
    validation_iterations: int = 50
    time_s: float | None = None
    """Wall-clock budget in seconds; the schedule then ends when it is spent and `epochs` is ignored."""
    optimizer: str = "sgd"
    learning_rate: float = 0.01
    momentum: float = 0.99
    weight_decay: float = 3e-5
    schedule: str = "poly"
    warmup_steps: int = 0
    gradient_clip: float = 12.0
    foreground_fraction: float = 0.33
    loss: str = "dice_ce"
    deep_supervision: bool = True
    augmentation: str = "default"
    """'default' (nnU-Net's table), 'strong' (the same with half of all patches rotated and half of them scaled instead
    of a fifth), 'light' (rotation, scaling, mirroring, brightness, noise), 'none';
    'batchgenerators' is the default table by that package's transforms, slower, for comparison."""
    mirror_axes: tuple[int, ...] | None = None
    """Patch axes to mirror in training and prediction; None means all."""
    batch_size: int | None = None
    """None takes the plan's."""
    weight_averaging: float = 0.0
    """Decay of the exponential moving average of the weights used for validation and prediction; 0 is off."""
    mixed_precision: bool = True
    """Short numbers where the device is faster with them: float16 on CUDA, bfloat16 on processors that multiply it."""
    compile: bool = False
    device: str = "auto"
    """'auto', 'cuda', 'cuda:1', 'mps' or 'cpu'."""
    threads: int = 0
    """CPU threads of the network; 0 means all cores."""
    loader_workers: int = -1
    """Processes that prepare batches; 0 does it in a thread of the training process, -1 chooses."""
    checkpoint_minutes: float = 5.0
    """Longest time between two checkpoints."""
    seed: int | None = 12345
    """Where the random numbers of a run start, together with its configuration and fold: the same command gives the
    same model on the same kind of device. None draws new ones every time, as nnU-Net does."""
    validation_step: float = 0.5
    """Sliding-window step of the final validation, as a fraction of the patch."""
    validation_mirroring: bool = True

    def __post_init__(self) -> None:
        try:
            take_declared_kinds(self)
        except TypeError as wrong:
            raise SettingsError(f"{wrong}; correct this training setting.") from wrong
        for name, known in _WORDS.items():
            self._require(name, getattr(self, name) in known, f"one of {', '.join(known)}")
        for names, fits, wanted in _RANGES:
            for name in names:
                value = getattr(self, name)
                self._require(name, value is None or fits(value), wanted)

    def _require(self, name: str, fits: bool, wanted: str) -> None:
        if not fits:
            found = getattr(self, name)
            raise SettingsError(f"{name} must be {wanted}, found {found!r:.60}; correct this training setting.")


@dataclass(frozen=True)
class EpochFinished:
    """One epoch is over; Dice values are the quick ones measured on patches."""

    epoch: int
    """Epochs done, counted from 1."""
    epochs: int
    """Epochs planned (an estimate under a time budget)."""
    train_loss: float
    validation_loss: float | None
    dice_per_class: tuple[float | None, ...]
    mean_dice: float | None
    smoothed_dice: float | None
    """Exponential moving average of `mean_dice` (0.9 old + 0.1 new)."""
    learning_rate: float
    seconds: float
    seconds_left: float
    time: float
    """Seconds since 1970 at the end of the epoch."""
    steps: int = 0
    """Optimiser steps done so far."""


@dataclass(frozen=True)
class Message:
    """Something a person should know: a device chosen, memory saved, a resumed run."""

    text: str
    time: float


@dataclass(frozen=True)
class Progressed:
    """A step of validation or prediction, or a part of one."""

    done: float
    total: int
    what: str
    time: float


@dataclass(frozen=True)
class Stopped:
    """Stopped on request; the checkpoint is valid and the run can be resumed."""

    epoch: int
    time: float


@dataclass(frozen=True)
class Finished:
    """The work is complete."""

    time: float
    mean_dice: float | None = None
    """Foreground Dice of the full validation, when there was one."""


@dataclass(frozen=True)
class Failed:
    """The work ended with an error; `text` is the sentence shown to the user."""

    text: str
    time: float


Event = EpochFinished | Message | Progressed | Stopped | Finished | Failed
_TIMES = ("time", "seconds", "seconds_left", "done")
_LARGEST_COUNT, _LONGEST_S = 1 << 31, 1e11
_EVENTS = {cls.__name__: cls for cls in (EpochFinished, Message, Progressed, Stopped, Finished, Failed)}


@dataclass(frozen=True)
class Run:
    """One fold of one configuration."""

    folder: FoldFolder
    configuration: str
    fold: int | str

    def record(self, event: Event) -> None:
        """Append an event to events.jsonl; one that cannot be written is missing there, and the work goes on."""
        note_event(self.folder.events, event)

    def events(self) -> list[Event]:
        """All events so far; a half-written last line is left out."""
        return list(read_events(self.folder.events))

    def stop_requested(self) -> bool:
        return self.folder.stop.exists()

    def request_stop(self) -> None:
        """Ask for a clean stop after the current step: the run saves a checkpoint and ends."""
        self.folder.folder.mkdir(parents=True, exist_ok=True)
        self.folder.stop.touch()

    def settings(self) -> TrainingSettings:
        """The settings the run was started with; raises SettingsError when it never was."""
        return load_settings(self.folder.settings)

    @property
    def finished(self) -> bool:
        return self.folder.checkpoint_final.is_file()


def note_event(path: Path, event: Event) -> None:
    """`append_event`, but a file that cannot be written is only said, once: days of work do not end for a line."""
    try:
        append_event(path, event)
    except OSError as error:
        _say_unwritable(path, error.strerror or str(error))


@functools.cache
def _say_unwritable(path: Path, reason: str) -> None:
    _log.warning("%s cannot be written (%s); the work goes on, but not all of it will be shown.", path, reason)


def append_event(path: Path, event: Event) -> None:
    """Append one event as one line of JSON; raises OSError, also where a link is in the file's place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps({"event": type(event).__name__} | to_json(event)).encode("utf-8") + b"\n"
    with patiently(lambda: open_at_end(path)) as file:
        file.write(line if _ends_a_line(file) else b"\n" + line)


def _ends_a_line(file: BinaryIO) -> bool:
    """Whether a file that is open at its end is empty or ends with a whole line: a killed process leaves half of one."""
    if not file.tell():
        return True
    file.seek(-1, io.SEEK_END)
    return file.read(1) == b"\n"


def read_events(path: Path) -> Iterator[Event]:
    """The events of a file, in order; none when the file is absent."""
    if not path.is_file():
        return
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        event = parse_event(line)
        if event:
            yield event


def recent_events(path: Path) -> list[Event]:
    """The events in the last part of a file, which may be of any length; none when it is absent."""
    return [event for line in _last_lines(path) if (event := parse_event(line))]


def last_event(path: Path) -> Event | None:
    """The newest event of a file; None when there is none, or it is half-written."""
    lines = _last_lines(path)
    return parse_event(lines[-1]) if lines else None


def _last_lines(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            size = file.seek(0, io.SEEK_END)
            file.seek(max(size - _TAIL_BYTES, 0))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return []
    return lines[1:] if size > _TAIL_BYTES else lines


def parse_event(line: str) -> Event | None:
    """One line of events.jsonl; None when it is half-written or of a kind that we do not know.

    Fields that we do not know, of a newer version on another machine, are left out.
    """
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        return None
    cls = _EVENTS.get(str(values.pop("event", ""))) if isinstance(values, dict) else None
    if cls is None:
        return None
    known = {field.name for field in dataclasses.fields(cls)}
    try:
        event = from_json(cls, {name: value for name, value in values.items() if name in known}, SettingsError)
    except SettingsError:
        return None
    return event if _can_be_shown(event) else None


def _can_be_shown(event: Event) -> bool:
    """Whether counts and times are such that widgets and clocks can show them; losses and Dice may be anything."""
    fields = vars(event)
    counts = [value for value in fields.values() if isinstance(value, int)]
    times = [fields[name] for name in _TIMES if name in fields]
    are_times = all(isinstance(time, (int, float)) and abs(time) < _LONGEST_S for time in times)
    return are_times and all(abs(n) < _LARGEST_COUNT for n in counts)


def load_settings(path: Path) -> TrainingSettings:
    """Training settings from a JSON file; raises SettingsError naming unknown fields."""
    return from_json(TrainingSettings, read_json(path, SettingsError), SettingsError)


def save_settings(settings: TrainingSettings, path: Path) -> None:
    """Write training settings as JSON; raises StorageError."""
    write_json(path, to_json(settings))
