"""A background writer with a bounded queue: encoding goes on while the bank writes, and never runs away from it.

Knows segments only as things to hand to `write`. An error of the writer is raised where the next segment is put.
"""

import queue
import threading
from collections.abc import Callable
from types import TracebackType

from encoders.schema import Segment


class BackgroundWriter:
    """`with BackgroundWriter(bank.write) as put: put(segment)`; leaving the block waits until all is written."""

    def __init__(self, write: Callable[[Segment], None], depth: int = 4) -> None:
        """depth: segments that may wait; a full queue makes `put` wait (back-pressure, bounded memory)."""
        self._write = write
        self._queue: queue.Queue[Segment | None] = queue.Queue(depth)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="bank-writer", daemon=True)

    def __enter__(self) -> Callable[[Segment], None]:
        self._thread.start()
        return self.put

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._queue.put(None)
        self._thread.join()
        if error is None and self._error is not None:
            raise self._error

    def put(self, segment: Segment) -> None:
        """Hand a segment over; raises what an earlier write raised."""
        if self._error is not None:
            raise self._error
        self._queue.put(segment)

    def _run(self) -> None:
        while (segment := self._queue.get()) is not None:
            if self._error is None:
                try:
                    self._write(segment)
                except BaseException as error:  # handed to the caller's thread, which raises it
                    self._error = error
