"""A training step that is recorded once on a CUDA GPU and replayed, so that the GPU never waits for Python.

A step of a small network starts some thousand operations, which takes the processor longer than the GPU needs for
them; a recorded step is a single one.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Iterator

import torch

from ..machine.memory import Say
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

    `optimizer` is the one whose step is in it. All batches must have the same shape. Where recording fails, `say` tells
    so and `recover` is called, and the steps go on as they are; they do without a word where the memory does not suffice.
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
        torch.cuda.reset_peak_memory_stats(device)  # what was before does not count for what a step needs
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
        if not self._has_room():
            self._ordinary_left = math.inf
            return
        own, graph = Batch(batch.image.clone(), batch.target.clone()), torch.cuda.CUDAGraph()
        pool, device = torch.cuda.graph_pool_handle(), self._stream.device
        try:
            with TURNS.alone(), may_be_recorded(self._optimizer), _back_on_this_stream(device):
                torch.cuda.synchronize(device)
                with torch.cuda.graph(graph, pool, self._stream, capture_error_mode="thread_local"):
                    self._loss = self._work(own)
        except RuntimeError as error:  # lack of memory is one
            reason = str(error).partition("\n")[0]
            self._say(f"A training step could not be recorded ({reason}); going on without, which is slower.")
            self._ordinary_left = math.inf
            _stop_recording_memory(device, pool)
            self._recover()
            return
        self._graph, self._batch = graph, own

    def _has_room(self) -> bool:
        """Whether the card has room for a step's memory twice: what a recorded step uses, others cannot use too.

        What lies there between steps, as weights and cases, counts once.

        Large networks, which fill a card, keep it busy without.
        """
        device = self._stream.device
        free, _ = torch.cuda.mem_get_info(device)
        needed = 2 * torch.cuda.max_memory_allocated(device) - torch.cuda.memory_allocated(device)
        return needed <= free + torch.cuda.memory_reserved(device)


def _stop_recording_memory(device: torch.device, pool: tuple[int, int]) -> None:
    """After some failures torch goes on as if it recorded, and would keep every batch (pytorch issue 180395)."""
    with contextlib.suppress(RuntimeError, AttributeError):  # as after other failures, and in other versions
        torch._C._cuda_endAllocateToPool(device.index, pool)


@contextlib.contextmanager
def _back_on_this_stream(device: torch.device) -> Iterator[None]:
    """A recording that fails leaves the thread on the stream it was made on."""
    here = torch.cuda.current_stream(device)
    try:
        yield
    finally:
        torch.cuda.set_stream(here)
