"""Batches from several processes.

Each process answers over a pipe of its own. Its death, even in the middle of an answer, then ends the pipe and is seen
at once; with a queue shared by all processes the reader would wait for the rest of the answer forever.
"""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch

from ..errors import NNSegmentError, RunError
from ..machine.stopping import AT_THE_TERMINAL
from .recipe import DAMAGE, Batch, BatchRecipe, damage_sentence

_REQUESTS = 2
"""Batches asked of each process ahead of their use."""


class LoaderProcesses:
    """Makes the batches `recipe.make(seed, first)`, `recipe.make(seed, first + 1)`, … in `workers` processes.

    Raises RunError with the worker's own sentence, or when a worker has died.
    """

    def __init__(self, recipe: BatchRecipe, workers: int, seed: int, first: int = 0) -> None:
        self._connections, self._processes = [], []
        self._proven = first + workers
        """From this batch on, each process has answered before."""
        try:
            for _ in range(workers):
                self._start(recipe, seed)
            for number in range(first, first + workers * _REQUESTS):
                self._connections[number % workers].send(number)
        except OSError as error:
            self.close()
            raise RunError(_why_ended(at_the_start=True)) from error

    def _start(self, recipe: BatchRecipe, seed: int) -> None:
        here, there = multiprocessing.Pipe()
        # a forked process has copies of our ends of the pipes, which would keep them open after our death
        ours = [*self._connections, here]
        process = multiprocessing.Process(target=_answer, args=(there, ours, recipe, seed), daemon=True)
        process.start()
        there.close()
        self._connections.append(here)
        self._processes.append(process)

    def __call__(self, number: int) -> Batch:
        """Batch `number`; to be called with `first`, `first` + 1, …"""
        workers = len(self._connections)
        connection = self._connections[number % workers]
        try:
            answer = connection.recv()
            connection.send(number + workers * _REQUESTS)
        except (EOFError, OSError) as error:
            raise RunError(_why_ended(number < self._proven)) from error
        if isinstance(answer, NNSegmentError):
            raise answer
        return Batch(*map(torch.from_numpy, answer))

    def close(self) -> None:
        """End the processes."""
        for connection, process in zip(self._connections, self._processes, strict=True):
            connection.close()
            process.terminate()
            process.join()


def _why_ended(at_the_start: bool) -> str:
    """Where processes are not forked, each runs the user's script again, and ends when that trains again."""
    ended = "A process that prepares batches has ended unexpectedly, perhaps for lack of memory"
    if at_the_start and multiprocessing.get_start_method() != "fork" and _is_a_script():
        return (
            f'{ended}, or because the script that trains has no line `if __name__ == "__main__":`; '
            "put what the script does below such a line, or continue the training with fewer loader_workers."
        )
    return f"{ended}; continue the training with fewer loader_workers."


def _is_a_script() -> bool:
    """Whether somebody's own file was started, and not a program of ours: `-m NNSegmentLib` or `nnsegment`."""
    main = sys.modules["__main__"]
    file = getattr(main, "__file__", None)
    if file is None or main.__spec__ is not None:
        return False
    return Path(file).name != "nnsegment" and Path(file).parent.name != "nnsegment.exe"  # as Windows packs it


def _answer(connection: Connection, others: Sequence[Connection], recipe: BatchRecipe, seed: int) -> None:
    """The life of a process: make the batches asked for until the other end of the pipe is closed."""
    for end in others:
        end.close()
    torch.set_num_threads(1)
    for number in AT_THE_TERMINAL:
        signal.signal(number, signal.SIG_IGN)  # a stop asked for there is the trainer's to handle
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a forked process has the trainer's handler
    try:
        while True:
            connection.send(_made(recipe, seed, connection.recv()))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


def _made(recipe: BatchRecipe, seed: int, number: int) -> tuple[np.ndarray, np.ndarray] | NNSegmentError:
    try:
        batch = recipe.make(seed, number)
    except NNSegmentError as error:
        return error
    except DAMAGE as error:
        return RunError(damage_sentence(error))
    return batch.image.numpy(), batch.target.numpy()
