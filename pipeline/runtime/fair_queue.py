"""Lets a few threads compute at a time; the others wait in the order of their arrival. Knows
nothing of their work."""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice

from pipeline.runtime.cancel import Cancelled

_POLL_S = 0.05  # how often a waiting thread checks whether it was cancelled


class FairQueue:
    """`with queue.turn(cancelled): ...`"""

    def __init__(self, concurrency: int) -> None:
        """concurrency: threads that may compute at the same time."""
        self._concurrency = concurrency
        self._queue: deque[object] = deque()  # those that compute, then those that wait
        self._changed = threading.Condition()

    @property
    def waiting(self) -> int:
        """Number of threads that wait."""
        return max(0, len(self._queue) - self._concurrency)

    @contextmanager
    def turn(self, cancelled: threading.Event | None = None) -> Iterator[None]:
        """Wait for a turn, which lasts until the block ends. Raises Cancelled when that is set
        before the turn comes."""
        ticket = object()
        with self._changed:
            self._queue.append(ticket)
        try:
            with self._changed:
                while ticket not in islice(self._queue, self._concurrency):
                    self._changed.wait(_POLL_S)
                    if cancelled is not None and cancelled.is_set():
                        raise Cancelled
            yield
        finally:
            with self._changed:
                self._queue.remove(ticket)
                self._changed.notify_all()
