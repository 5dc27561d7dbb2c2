"""A training step that is recorded once on a CUDA GPU and replayed, so that the GPU never waits for Python.

A step of a small network starts some thousand operations, which takes the processor longer than the GPU needs for
them; a recorded step is a single one.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

import torch

from ..memory import Say
from .optimizer import may_be_recorded
from .recipe import Batch

_ORDINARY_STEPS = 5
"""Steps before the recording: convolutions are tuned and the optimiser's state comes into being."""


class Turns:
    """Lets several threads use the GPU together, or one alone."""

    def __init__(self) -> None:
        self._changed, self._users, self._taken = threading.Condition(), 0, False

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Inside, nobody is alone."""
        with self._changed:
            self._changed.wait_for(lambda: not self._taken)
            self._users += 1
        try:
            yield
        finally:
            with self._changed:
                self._users -= 1
                self._changed.notify_all()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Inside, nobody else is."""
        with self._changed:
            self._changed.wait_for(lambda: not (self._taken or self._users))
            self._taken = True
        try:
            yield
        finally:
            with self._changed:
                self._taken = False
                self._changed.notify_all()


TURNS = Turns()
"""A step is recorded alone; threads that prepare batches use the GPU together."""


class RecordedStep:
    """Calls `work`, a step from batch to loss without an answer from the GPU, in recorded form.

    `optimizer` is the one whose step is in it. All batches must have the same shape. Where recording fails, `say` tells so and `recover` is called, and the
    steps go on as they are.
    """

    def __init__(
        self,
        work: Callable[[Batch], torch.Tensor],
        optimizer: torch.optim.Optimizer,
        device: torch.device,
        say: Say,
        recover: Callable[[], None],
    ) -> None:
        self._work, self._optimizer, self._say, self._recover = work, optimizer, say, recover
        self._stream = torch.cuda.Stream(device)
        self._ordinary_left: float = _ORDINARY_STEPS
        self._graph: torch.cuda.CUDAGraph | None = None
        self._batch: Batch | None = None
        self._loss: torch.Tensor | None = None

    def __call__(self, batch: Batch) -> torch.Tensor:
        """The loss of a step."""
        if self._ordinary_left <= 0 and self._graph is None:
            self._record(batch)
        if self._graph is None:
            return self._ordinary(batch)
        self._batch.image.copy_(batch.image)
        self._batch.target.copy_(batch.target)
        self._graph.replay()
        return self._loss.clone()

    def _ordinary(self, batch: Batch) -> torch.Tensor:
        """A step on the stream that the recording will use, as autograd wants it."""
        self._ordinary_left -= 1
        here = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(here)
        with torch.cuda.stream(self._stream):
            loss = self._work(batch)
        here.wait_stream(self._stream)
        return loss

    def _record(self, batch: Batch) -> None:
        own, graph = Batch(batch.image.clone(), batch.target.clone()), torch.cuda.CUDAGraph()
        try:
            with TURNS.alone(), may_be_recorded(self._optimizer):
                torch.cuda.synchronize(self._stream.device)
                with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                    self._loss = self._work(own)
        except RuntimeError as error:  # lack of memory is one
            reason = str(error).partition("\n")[0]
            self._say(f"A training step could not be recorded ({reason}); going on without, which is slower.")
            self._ordinary_left = float("inf")
            self._recover()
            return
        self._graph, self._batch = graph, own
