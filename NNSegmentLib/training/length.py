"""How long to train: as people say it, turned into the words of the command line, and what is said of too short a training."""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence
from enum import StrEnum

from ..errors import SettingsError
from ..run import EpochFinished, Run, TrainingSettings
from ..terminal import parse_duration


class TrainingLength(StrEnum):
    """What the user may choose."""

    QUICK = "quick look"
    HOUR = "an hour"
    TONIGHT = "tonight until 7:00"
    FULL = "full nnU-Net schedule"
    OTHER = "other"


QUICK_S, HOUR_S = 300, 3600
ENOUGH_STEPS = 250
"""Shorter trainings leave a model that has learnt next to nothing: after 134 steps the sample task had a Dice of 0.2."""
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


def too_few_steps(runs: Sequence[Run]) -> str:
    """What to say of trainings of which one ended before it could learn much, or nothing; the shortest is named."""
    steps, seconds, run = min((_trained(run) for run in runs), key=lambda trained: trained[0])
    if not 0 < steps < ENOUGH_STEPS:
        return ""
    needed = max(2 * ENOUGH_STEPS / steps * seconds, 2 * QUICK_S)
    return (
        f"Fold {run.fold} of {run.configuration} was trained for {steps} steps only, and a few hundred are needed to learn; "
        f"give each fold more time ({' '.join(_time_words(needed, 1))}), or train on a faster machine."
    )


def _trained(run: Run) -> tuple[int, float, Run]:
    """Steps and seconds of a run; nobody recorded those of nnU-Net's."""
    epochs = [event for event in run.events() if isinstance(event, EpochFinished)]
    return max((epoch.steps for epoch in epochs), default=0), sum(epoch.seconds for epoch in epochs), run


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
