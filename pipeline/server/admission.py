"""A bounded line: so many at work, so many waiting, the rest is turned away at once and told when to come back.

Knows no question: who enters leaves again.
"""

import math
import threading
import time

from pipeline.server.errors import ApiError


class Place:
    """A place in the line; `leave` gives it back, once, from any thread. Whoever has `handed_on` it leaves it to a worker to do
    so when the work is done; else who entered must."""

    def __init__(self, line: "Line") -> None:
        self.handed_on = False
        self._line, self._began, self._left = line, time.monotonic(), False

    def leave(self) -> None:
        with self._line.lock:
            if not self._left:
                self._left = True
                self._line.left(time.monotonic() - self._began)


class Line:
    """Counts who is inside. Threads and the event loop may use it at the same time."""

    def __init__(self, what: str, running: int, waiting: int) -> None:
        """what: "questions". running: how many are worked on at once; waiting: how many more may stand in line."""
        self._what = what
        self.lock = threading.RLock()
        self.inside = 0
        self.refused = 0
        self._running, self._most = running, running + waiting
        self._seconds = 1.0  # that one takes, lately

    def enter(self) -> Place:
        """ApiError 429 when the line is full."""
        with self.lock:
            if self.inside >= self._most:
                self.refused += 1
                raise ApiError(
                    429,
                    f"{self.inside} {self._what} are at work or wait already; try again later.",
                    code="rate_limit_exceeded",
                    retry_after=self._wait(),
                )
            self.inside += 1
            return Place(self)

    def left(self, seconds: float) -> None:
        """For `Place` alone, with the lock held."""
        self.inside -= 1
        self._seconds += 0.2 * (seconds - self._seconds)

    def _wait(self) -> int:
        """Seconds until about one place is free."""
        return min(max(1, math.ceil(self._seconds / self._running)), 60)
