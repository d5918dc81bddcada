"""A background writer with a bounded queue: encoding goes on while the bank writes, and never runs away from it.

Knows segments only as things to hand to `write`, which says how many bytes each became. A segment is acknowledged when
`write` has returned, not when it was put: `flush` waits for all of them. An error of the writer is raised where the next
segment is put, or by `flush`; what was put after it is not written.
"""

import queue
import threading
from collections.abc import Callable
from types import TracebackType

from encoders.schema import Segment


class BackgroundWriter:
    """`with BackgroundWriter(bank.write) as writer: writer.put(segment)`; leaving the block flushes."""

    def __init__(self, write: Callable[[Segment], int], depth: int = 4) -> None:
        """depth: segments that may wait; a full queue makes `put` wait (back-pressure, bounded memory)."""
        self.nbytes = 0  # of the segments that are written
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
        """Hand a segment over, after waiting for room; raises what an earlier write raised."""
        self._raise()
        self._queue.put(segment)

    def flush(self) -> None:
        """Wait until everything that was put is written; raises what a write raised."""
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
                except BaseException as error:  # handed to the caller's thread, which raises it
                    self._error = error
            self._queue.task_done()
