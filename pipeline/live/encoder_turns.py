"""Lets several live streams share one encoder: the stream that would lose frames first comes first,
and none waits without end. Where something else is more urgent, such as people who wait for an
answer, a turn begins up to DEFERRED_S later: a stream can sample less, and a reader cannot.

Knows streams only by how urgent they are. A frame that has waited for PATIENCE_S counts as much as
a full queue, so a stream that gets few frames, or no more, also has its turn. A turn lasts for the
frames that a stream hands to the encoder at once, so no stream waits for the whole segment of
another one.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# the share of its queue that is full, and seconds that its oldest frame has waited
Urgency = Callable[[], tuple[float, float]]
PATIENCE_S = 15.0
DEFERRED_S = 1.0  # that a free encoder lets something more urgent go first, at most
_POLL_S = 0.05


class EncoderTurns:
    """`with turns.turn(urgency): ...`"""

    def __init__(
        self, concurrency: int = 1, is_deferred: Callable[[], bool] = lambda: False
    ) -> None:
        """concurrency: streams that encode at the same time. is_deferred: whether something more
        urgent waits for the processor."""
        self.longest_wait = 0.0  # seconds that a stream waited for a turn, at most
        self._free, self._is_deferred = concurrency, is_deferred
        self._waiting: list[Urgency] = []
        self._changed = threading.Condition()

    @property
    def is_contended(self) -> bool:
        """Whether a stream waits for a turn."""
        return bool(self._waiting)

    @contextmanager
    def turn(self, urgency: Urgency) -> Iterator[None]:
        """Wait for a turn, which lasts until the block ends. urgency: asked whenever a turn is
        given away; the greatest one gets it."""
        began = time.monotonic()
        with self._changed:
            self._waiting.append(urgency)
            try:
                free_since = None  # when the encoder could have taken this stream
                while True:
                    if not (self._free and self._most_urgent() is urgency):
                        self._changed.wait(0.5)
                        continue
                    now = time.monotonic()
                    free_since = now if free_since is None else free_since
                    if now - free_since >= DEFERRED_S or not self._is_deferred():
                        break
                    self._changed.wait(_POLL_S)
            finally:  # one that gives up is no more in the way of the others
                self._waiting.remove(urgency)
            self._free -= 1
            self.longest_wait = max(self.longest_wait, time.monotonic() - began)
        try:
            yield
        finally:
            with self._changed:
                self._free += 1
                self._changed.notify_all()

    def _most_urgent(self) -> Urgency:
        return max(self._waiting, key=_priority)


def _priority(urgency: Urgency) -> tuple[float, float]:
    share, age = urgency()
    return max(share, age / PATIENCE_S), age
