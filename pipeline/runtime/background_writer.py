"""A background writer with a bounded queue: encoding continues while the bank writes, and waits
when the queue is full.

Knows segments only as arguments of `write`, which returns the bytes of each. A segment is
acknowledged when `write` has returned, not when it was put: `flush` waits for all of them. An error
of `write` is raised by the next `put` or `flush`, and no segment behind it is written.
"""

import queue
import threading
from collections.abc import Callable
from types import TracebackType

from encoders.schema import Segment


class BackgroundWriter:
    """`with BackgroundWriter(bank.write) as writer: writer.put(segment)`; leaving the block
    flushes."""

    def __init__(self, write: Callable[[Segment], int], depth: int = 4) -> None:
        """depth: segments that may wait; `put` waits while the queue is full (back-pressure,
        bounded memory)."""
        self.nbytes = 0  # of the segments written so far
        self._write = write
        self._queue: queue.Queue[Segment | None] = queue.Queue(depth)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="bank-writer", daemon=True)

    def __enter__(self) -> "BackgroundWriter":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._queue.put(None)
        self._thread.join()
        if error is None:
            self._raise()

    def put(self, segment: Segment) -> None:
        """Wait for room, and queue a segment. Raises the error of an earlier write."""
        self._raise()
        self._queue.put(segment)

    def flush(self) -> None:
        """Wait until all queued segments are written. Raises the error of a write."""
        self._queue.join()
        self._raise()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while (segment := self._queue.get()) is not None:
            if self._error is None:
                try:
                    self.nbytes += self._write(segment)
                except BaseException as error:  # raised in the calling thread
                    self._error = error
            self._queue.task_done()
