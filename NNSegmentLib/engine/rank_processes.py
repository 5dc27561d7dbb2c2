"""Training one fold in several processes, which are started, listened to and ended here."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from ..errors import NNSegmentError, RunError
from ..machine.processes import ProcessIdentity, end_tree
from ..machine.stopping import AT_THE_TERMINAL, stopping_cleanly
from ..progress import Progress, silent
from ..records import remove
from ..run import EpochFinished, Failed, Run, Stopped
from .ranks import is_lost_peer, joined_ranks, require_ranks
from .session import TrainingRequest
from .trainer import train_fold

_LOOK_S = 0.5
"""How often to see whether all processes are alive."""
_GRACE_S = 5.0
"""When a rank says that another is gone: how long to wait for the reason."""


@dataclass(frozen=True)
class Advanced:
    """A rank's report of progress."""

    done: float
    total: int
    what: str


@dataclass(frozen=True)
class Done:
    """A rank has nothing left to do."""


@dataclass(frozen=True)
class PeerLost:
    """A rank can no longer reach another one."""


def train_fold_on(request: TrainingRequest, gpus: int, progress: Progress = silent) -> Run:
    """`train_fold` on the first `gpus` GPUs, or in so many processes when the device is the CPU.

    The batch is divided among them; the result is that of one process with the whole batch. A script that calls this
    needs the usual `if __name__ == "__main__":`. Raises as `train_fold` does, SettingsError when there are too few
    GPUs or samples in a batch, and RunError when one of the processes ends unexpectedly. None of them stays behind.
    As there, what is refused before the first step leaves an earlier run as it was.
    """
    if gpus == 1:
        return train_fold(request, progress)
    require_ranks(request.settings.device, gpus, request.settings.batch_size or request.wanted.batch_size)
    run = Run(request.folder, request.configuration, request.fold_name)
    if request.resume and run.finished:
        return run
    remove(run.folder.stop)
    before = _events_on_disk(run)
    try:
        with stopping_cleanly(run.folder.stop), started_ranks(request, gpus) as ranks:
            ranks.follow(progress)
    except NNSegmentError as error:
        if _events_on_disk(run) != before:
            run.record(Failed(str(error), time.time()))
        raise
    except KeyboardInterrupt:
        if _events_on_disk(run) != before:
            run.record(Stopped(_epochs_of(run), time.time()))
        remove(run.folder.stop)
        raise
    return run


@dataclass(frozen=True)
class RankProcesses:
    """The processes, the first rank's first, and what they say."""

    processes: tuple[BaseProcess, ...]
    pipes: tuple[Connection, ...]

    def follow(self, progress: Progress) -> None:
        """Pass on progress until all are done; raises the first rank's error, or RunError for one that vanished."""
        working = dict(zip(self.pipes, self.processes, strict=True))
        while working:
            for pipe in connection.wait(list(working), _LOOK_S):
                said = _heard(pipe)
                if isinstance(said, Advanced):
                    progress(said.done, said.total, said.what)
                elif isinstance(said, NNSegmentError):
                    raise said
                elif isinstance(said, Done):
                    del working[pipe]
                else:
                    self._explain()
            if any(not process.is_alive() and not pipe.poll() for pipe, process in working.items()):
                self._explain()

    def _explain(self) -> None:
        """Raises the error of the rank that ended first, as far as that can be known."""
        ends = time.monotonic() + _GRACE_S
        while time.monotonic() < ends:
            for pipe in connection.wait(self.pipes, 0):
                said = _heard(pipe)
                if isinstance(said, NNSegmentError):
                    raise said
            for rank, process in enumerate(self.processes):
                if process.exitcode:
                    raise RunError(self._vanished(rank, process.exitcode))
            time.sleep(0.05)
        raise RunError("The processes of the training lost each other; go on with --resume, or with fewer --gpus.")

    def _vanished(self, rank: int, code: int) -> str:
        how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
        return (
            f"Process {rank + 1} of {len(self.processes)} of the training ended unexpectedly ({how}), perhaps for lack "
            "of memory; go on with --resume, with fewer --gpus if it happens again."
        )

    def end(self) -> None:
        """End all processes and what they started; those that are done have a moment to end by themselves."""
        for process in self.processes:
            if process.is_alive():
                identity = ProcessIdentity.of(process.pid)
                if identity is not None:
                    end_tree(identity)
            process.join()
            process.close()


@contextlib.contextmanager
def started_ranks(request: TrainingRequest, size: int) -> Iterator[RankProcesses]:
    """Processes that train together; they are ended with the block, whatever happens."""
    start = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="nnsegment-ranks-", ignore_cleanup_errors=True) as folder:
        ranks = RankProcesses((), ())
        try:
            for rank in range(size):
                here, there = start.Pipe()
                arguments = (there, rank, size, Path(folder) / "meeting", request)
                process = start.Process(target=train_as_rank, args=arguments, name=f"rank {rank}", daemon=False)
                process.start()
                there.close()
                ranks = RankProcesses((*ranks.processes, process), (*ranks.pipes, here))
            yield ranks
            for process in ranks.processes:
                process.join(_GRACE_S)
        finally:
            ranks.end()


def train_as_rank(pipe: Connection, rank: int, size: int, meeting: Path, request: TrainingRequest) -> None:
    """The life of one process; progress, errors and the end go through the pipe, and its end ends us."""
    for number in (signal.SIGTERM, *AT_THE_TERMINAL):
        signal.signal(number, signal.SIG_IGN)  # whoever started us turns them into a stop for all
    threading.Thread(target=_end_with, args=(pipe,), daemon=True).start()
    try:
        with joined_ranks(rank, size, meeting, request.settings.device) as ranks:
            train_fold(request, _reporter(pipe) if ranks.first else silent, ranks)
        pipe.send(Done())
    except NNSegmentError as error:
        _say_last(pipe, error)
    except RuntimeError as error:
        if not is_lost_peer(error):
            raise
        _say_last(pipe, PeerLost())


def _reporter(pipe: Connection) -> Progress:
    return lambda done, total, what: pipe.send(Advanced(done, total, what))


def _say_last(pipe: Connection, said: NNSegmentError | PeerLost) -> None:
    """Say why we cannot go on, and wait to be ended: the others would otherwise fail of our end."""
    pipe.send(said)
    time.sleep(2 * _GRACE_S)
    os._exit(1)  # the threads of the process group may hang


def _heard(pipe: Connection) -> object:
    try:
        return pipe.recv()
    except (EOFError, OSError):
        return PeerLost()


def _end_with(pipe: Connection) -> None:
    """End this process and those it started as soon as the one that started it is gone."""
    with contextlib.suppress(EOFError, OSError):
        pipe.recv()
    for child in multiprocessing.active_children():
        child.kill()
    os._exit(1)


def _events_on_disk(run: Run) -> tuple[int, int] | None:
    """Which events file there is, and its size: both change when the first rank writes the beginning of a run."""
    try:
        found = run.folder.events.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_size


def _epochs_of(run: Run) -> int:
    return max((event.epoch for event in run.events() if isinstance(event, EpochFinished)), default=0)
