"""How far a job is, in numbers and in words, from its events."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from ..run import EpochFinished, Event, Message, Progressed
from ..terminal import duration


@dataclass(frozen=True)
class JobProgress:
    """What a progress bar shows; `with_events` gives the next one."""

    fraction: float | None = None
    """0 to 1; None while nothing is known."""
    text: str = ""
    seconds_left: float | None = None
    _what: str = ""
    _began: Progressed | None = None
    _done: float = 0
    """Of the latest step; work that has done less is other work."""

    def with_events(self, events: Iterable[Event]) -> JobProgress:
        """The progress after more events."""
        progress = self
        for event in events:
            progress = progress._after(event)
        return progress

    def _after(self, event: Event) -> JobProgress:
        if isinstance(event, EpochFinished):
            share = _share(event.epoch, event.epochs)
            return replace(self, fraction=share, text=epoch_text(event), seconds_left=event.seconds_left)
        if isinstance(event, Progressed):
            return self._stepped(event)
        if isinstance(event, Message):
            return replace(self, text=event.text)
        return self

    def _stepped(self, event: Progressed) -> JobProgress:
        kind = event.what.partition(" ")[0]  # the rest tells more about the same work, as does a new total
        same = self._began is not None and self._what == kind and event.done >= self._done
        began = self._began if same else event
        steps, passed = event.done - began.done, event.time - began.time
        left = passed / steps * (event.total - event.done) if steps > 0 else None
        text = self._epoch_now(event) if kind == "epoch" else f"{event.what}: {event.done:g} / {event.total}"
        return JobProgress(_share(event.done, event.total), text, left, kind, began, event.done)

    def _epoch_now(self, event: Progressed) -> str:
        """The result of the epoch before as long as one is at work; its steps may be counted in seconds."""
        number = next((int(word) for word in re.findall(r"\d{1,9}", event.what)), 1)
        return self.text if self.text.startswith(f"Epoch {number - 1} / ") else f"Epoch {number}"

    @property
    def time_left(self) -> str:
        """'3 min', or nothing while it is not known."""
        return "" if self.seconds_left is None else duration(max(self.seconds_left, 0))


def epoch_text(event: EpochFinished) -> str:
    """'Epoch 12 / 50', with the mean Dice when there is one; its moving average would lag in short trainings."""
    dice = "" if event.mean_dice is None else f" · Dice {event.mean_dice:.3f}"
    return f"Epoch {event.epoch} / {event.epochs}{dice}"


def _share(done: float, total: int) -> float | None:
    return min(done / total, 1.0) if total > 0 else None
