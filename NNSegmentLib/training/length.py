"""How long to train, as people say it, turned into the words of the command line."""

from __future__ import annotations

import datetime
import re
from enum import StrEnum

from ..errors import SettingsError
from ..run import TrainingSettings
from ..terminal import parse_duration


class TrainingLength(StrEnum):
    """What the user may choose."""

    QUICK = "quick look"
    HOUR = "an hour"
    TONIGHT = "tonight until 7:00"
    FULL = "full nnU-Net schedule"
    OTHER = "other"


QUICK_S, HOUR_S = 300, 3600
MORNING = datetime.time(7)
_EPOCHS = re.compile(r"\s*(\d+)\s*epochs?\s*", re.IGNORECASE)


def length_words(
    length: TrainingLength, text: str = "", runs: int = 1, now: datetime.datetime | None = None
) -> tuple[str, ...]:
    """The options of `train` for a length of `runs` trainings together; `text` is what the user wrote for OTHER.

    A time is shared by the runs, a number of epochs is that of each. No words leave the choice to the plan.
    Raises SettingsError when `text` is neither a time nor a number of epochs.
    """
    if length is TrainingLength.FULL:
        return ("--epochs", str(TrainingSettings.epochs))
    if length is TrainingLength.OTHER:
        return _other_words(text, runs)
    if length is TrainingLength.TONIGHT:
        return _time_words(seconds_until(MORNING, now or datetime.datetime.now()), runs)
    return _time_words(QUICK_S if length is TrainingLength.QUICK else HOUR_S, runs)


def seconds_until(clock: datetime.time, now: datetime.datetime) -> float:
    """Seconds from `now` to the next time that the clock shows `clock`."""
    then = datetime.datetime.combine(now.date(), clock)
    if then <= now:
        then += datetime.timedelta(days=1)
    return (then - now).total_seconds()


def _other_words(text: str, runs: int) -> tuple[str, ...]:
    if not text.strip():
        return ()
    epochs = _EPOCHS.fullmatch(text)
    if epochs and int(epochs[1]) > 0:
        return ("--epochs", str(int(epochs[1])))
    try:
        seconds = parse_duration(text)
    except ValueError:
        seconds = 0.0
    if seconds <= 0:
        raise SettingsError(f"A length is written like 30m, 2h or 200 epochs, found {text!r}; correct it.")
    return _time_words(seconds, runs)


def _time_words(seconds: float, runs: int) -> tuple[str, ...]:
    share = max(int(seconds / max(runs, 1)), 1)
    minutes, rest = divmod(share, 60)
    hours, minutes = divmod(minutes, 60)
    parts = ((hours, "h"), (minutes, "m"), (rest if share < 600 else 0, "s"))
    return ("--time", "".join(f"{number}{unit}" for number, unit in parts if number))
