"""A bounded admission queue: some requests run, some wait, and the rest are rejected with HTTP 429.

Knows nothing about questions. Every admitted request must release its ticket.
"""

import math
import threading
import time
from collections.abc import Callable

from pipeline.server.errors import ApiError


class Ticket:
    """Permission to run or wait. `release` returns it; later calls and other threads are safe.

    After `transferred` is set, the worker that runs the request releases the ticket. Until then the
    code that entered the queue does.
    """

    def __init__(self, queue: "AdmissionQueue") -> None:
        self.transferred = False
        self._queue, self._start, self._released = queue, time.monotonic(), False
        self._afterwards: list[Callable[[], None]] = []

    def at_release(self, call: Callable[[], None]) -> None:
        """Have something called once the ticket is released. Before the ticket is transferred."""
        self._afterwards.append(call)

    def release(self) -> None:
        with self._queue.lock:
            if self._released:
                return
            self._released = True
            self._queue.record_release(time.monotonic() - self._start)
        for call in self._afterwards:
            call()


class AdmissionQueue:
    """Counts admitted requests. Safe to use from threads and from the event loop."""

    def __init__(self, what: str, running: int, waiting: int) -> None:
        """what: plural noun for error messages, such as "questions".

        running: requests processed at the same time. waiting: further requests that may wait.
        """
        self._what = what
        self.lock = threading.RLock()
        self.admitted = 0  # running and waiting
        self.rejections = 0
        self._running, self._capacity = running, running + waiting
        self._seconds = 1.0  # moving average of the time that a request holds its ticket

    @property
    def waiting(self) -> int:
        """Admitted requests beyond those that run."""
        return max(0, self.admitted - self._running)

    def enter(self) -> Ticket:
        """Admit one request. ApiError 429 when the queue is full."""
        with self.lock:
            if self.admitted >= self._capacity:
                self.rejections += 1
                raise ApiError(
                    429,
                    f"{self.admitted} {self._what} are at work or wait already; try again later.",
                    code="rate_limit_exceeded",
                    retry_after=self._retry_after(),
                )
            self.admitted += 1
            return Ticket(self)

    def record_release(self, seconds: float) -> None:
        """Called by `Ticket` only, with the lock held. seconds: how long the ticket was out."""
        self.admitted -= 1
        self._seconds += 0.2 * (seconds - self._seconds)

    def _retry_after(self) -> int:
        """Estimated seconds until a place is free, 1 to 60."""
        return min(max(1, math.ceil(self._seconds / self._running)), 60)
