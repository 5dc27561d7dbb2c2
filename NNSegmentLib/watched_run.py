"""What a training run tells while it goes on, for those that show it."""

from __future__ import annotations

from pathlib import Path

from .run import EpochFinished, Event, Finished, Message, Stopped, read_events


class WatchedRun:
    """The events that a training run records from a moment on; its file may be replaced by a new one."""

    def __init__(self, path: Path, since: float) -> None:
        self._path, self._since = path, since
        self._seen, self._stamp = 0, None
        self.mean_dice: float | None = None
        self.epoch = 0

    def news(self) -> list[Event]:
        """The epochs and messages recorded since the last call; a file that cannot be read now is read at the next one."""
        stamp = self._stamp_now()
        if stamp is None or stamp == self._stamp:
            return []
        try:
            events = [event for event in read_events(self._path) if event.time >= self._since]
        except OSError:
            return []
        new, self._seen, self._stamp = events[self._seen :], len(events), stamp
        for event in new:
            if isinstance(event, (EpochFinished, Stopped)):
                self.epoch = event.epoch
            elif isinstance(event, Finished):
                self.mean_dice = event.mean_dice
        return [event for event in new if isinstance(event, (EpochFinished, Message))]

    def new_messages(self) -> list[str]:
        """What was said for people since the last call."""
        return [event.text for event in self.news() if isinstance(event, Message)]

    def _stamp_now(self) -> tuple[int, int] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size
