"""Inputs made ahead of the network, from the moment on in which torch begins to load."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from ..task import Case
from .inputs import Ready

KEPT_BYTES = 128 * 2**20
"""Inputs that are ready are kept up to this amount; a single one may be larger."""


class InputsAhead:
    """The inputs of cases, read and prepared one after the other in a thread, for use in a `with` statement.

    Loading torch takes a second or two, mostly of Python's time on one core, while reading and resampling leave Python
    alone. Many small inputs, or one large one, are ready when it has loaded.
    """

    def __init__(self, cases: Sequence[Case], make: Callable[[Case], Ready]) -> None:
        self._left, self._make = deque(cases), make
        self._ahead: deque[Future[Ready]] = deque()
        self._latest: Future[Ready] | None = None
        self._lock = threading.RLock()
        self._thread = ThreadPoolExecutor(1, "inputs")

    def __enter__(self) -> InputsAhead:
        self._go_on()
        return self

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._left.clear()
        self._thread.shutdown(cancel_futures=True)

    def take(self) -> Ready:
        """The next case's input; raises what making it raised."""
        with self._lock:
            if not self._ahead:  # the one before has just failed, and its thread has not gone on yet
                self._go_on()
            taken = self._ahead.popleft()
        self._go_on()
        return taken.result()

    def _go_on(self, done: object = None) -> None:
        """Begin with the next case unless one is in the making or enough are ready."""
        with self._lock:
            if not self._left or not self._has_room():
                return
            begun = self._latest = self._thread.submit(self._make, self._left.popleft())
            self._ahead.append(begun)
        begun.add_done_callback(self._go_on)

    def _has_room(self) -> bool:
        if self._latest and not self._latest.done():
            return False
        kept = [0 if made.exception() else made.result().nbytes for made in self._ahead]
        return not kept or sum(kept) < KEPT_BYTES
