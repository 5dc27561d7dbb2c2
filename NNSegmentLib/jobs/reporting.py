"""The child's side of a job: events, heartbeat and result into the job's folder, and its STOP turned into Ctrl-C."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

from ..folders import JobFolder
from ..machine.processes import ProcessIdentity
from ..machine.stopping import handling, interrupt_main_thread
from ..records import to_json, write_json
from ..run import Event, Failed, Finished, Message, Progressed, Stopped, note_event
from ..terminal import STOPPED, Outcome, Terminal
from ..watched_run import WatchedRun

HEARTBEAT_S = 2.0
_LOOK_S = 0.25
_PROGRESS_S = (1.0, 10.0)
"""Progress is written at most this often at the beginning, and later on."""
_log = logging.getLogger(__name__)


def run_as_job(folder: Path, work: Callable[[Reporter], Outcome]) -> int:
    """Do `work` with a reporter as its receiver of progress; returns the exit code."""
    with Reporter(JobFolder(folder), Terminal()) as reporter:
        outcome = work(reporter)
        reporter.end(outcome)
        return outcome.code


class Reporter:
    """A receiver of progress that shows it on the terminal and writes it into the job's folder.

    A thread of its own keeps the heartbeat, looks for STOP, and copies the events of the training runs it was told of.
    """

    def __init__(self, folder: JobFolder, terminal: Terminal) -> None:
        self._folder, self._terminal = folder, terminal
        self._lock, self._over = threading.Lock(), threading.Event()
        self._latest: Progressed | None = None
        self._runs: list[WatchedRun] = []
        self._began = self._written = time.monotonic()
        self._ended = self._interrupted = False
        self._stack = contextlib.ExitStack()
        self._thread = threading.Thread(target=self._live, name="job reporter", daemon=True)

    def __enter__(self) -> Reporter:
        self._stack.enter_context(handling(signal.default_int_handler))
        write_json(self._folder.process, to_json(ProcessIdentity.own()))
        self._folder.heartbeat.touch()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if not self._ended:
            if kind is KeyboardInterrupt:
                self.end(Outcome(STOPPED))
            else:
                self.end(Outcome(1, sentence=f"The work ended unexpectedly ({error!r}); log.txt tells where."))
        self._stack.close()

    def __call__(self, done: float, total: int, what: str) -> None:
        self._terminal(done, total, what)
        self._latest = Progressed(done, total, what, time.time())

    def say(self, text: str) -> None:
        """A message for people, on the terminal and as an event."""
        self._terminal.say(text)
        self._write(Message(text, time.time()))

    def watch(self, events: Path) -> None:
        """Copy what a training run records from now on."""
        with self._lock:
            self._runs.append(WatchedRun(events, time.time()))

    def close(self) -> None:
        """End the bar's line."""
        self._terminal.close()

    def end(self, outcome: Outcome) -> None:
        """Write the result and the last event; from here on a stop comes too late."""
        with handling(signal.SIG_IGN):
            self._ended = True
            self._over.set()
            self._thread.join()
            self._copy_runs()
            self._write_progress()
            if outcome.code == 0:
                write_json(self._folder.result, to_json(outcome.result))
            self._write(self._last_event(outcome))

    def _last_event(self, outcome: Outcome) -> Event:
        now = time.time()
        if outcome.code == 0:
            scores = [run.mean_dice for run in self._runs if run.mean_dice is not None]
            return Finished(now, sum(scores) / len(scores) if scores else None)
        if outcome.code == STOPPED:
            return Stopped(max((run.epoch for run in self._runs), default=0), now)
        return Failed(outcome.sentence, now)

    def _live(self) -> None:
        beat = time.monotonic()
        while not self._over.wait(_LOOK_S):
            try:
                if time.monotonic() - beat >= HEARTBEAT_S:
                    self._folder.heartbeat.touch()
                    beat = time.monotonic()
                self._forward_stop()
                self._copy_runs()
                if time.monotonic() - self._written >= self._pause_s():
                    self._write_progress()
            except OSError as error:
                _log.warning("The job's folder cannot be written: %s", error)

    def _pause_s(self) -> float:
        """Longer with time: a training of days should not write a file of hundreds of megabytes."""
        least, most = _PROGRESS_S
        return min(max((time.monotonic() - self._began) / 100, least), most)

    def _forward_stop(self) -> None:
        if not self._interrupted and self._folder.stop.exists():
            self._interrupted = True
            interrupt_main_thread()

    def _copy_runs(self) -> None:
        with self._lock:
            runs = list(self._runs)
        for run in runs:
            for event in run.news():
                self._write(event)

    def _write_progress(self) -> None:
        latest, self._latest = self._latest, None
        if latest is not None:
            self._write(latest)
            self._written = time.monotonic()

    def _write(self, event: Event) -> None:
        with self._lock:
            note_event(self._folder.events, event)
