"""Who may compute now: a few at a time, the others in the order in which they came. Knows nothing of what they do."""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice

from pipeline.runtime.cancel import Cancelled

_LOOK_S = 0.05  # how often somebody who waits looks whether he is still wanted


class Turns:
    """`with turns.take(cancelled): ...`"""

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._line: deque[object] = deque()  # who is in, and behind them who waits
        self._moved = threading.Condition()

    @property
    def waiting(self) -> int:
        """How many wait."""
        return max(0, len(self._line) - self._at_once)

    @contextmanager
    def take(self, cancelled: threading.Event | None = None) -> Iterator[None]:
        """A turn, until the block ends. Cancelled when that is set before it has come."""
        me = object()
        with self._moved:
            self._line.append(me)
        try:
            with self._moved:
                while me not in islice(self._line, self._at_once):
                    self._moved.wait(_LOOK_S)
                    if cancelled is not None and cancelled.is_set():
                        raise Cancelled
            yield
        finally:
            with self._moved:
                self._line.remove(me)
                self._moved.notify_all()
