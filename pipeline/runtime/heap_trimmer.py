"""Returns freed memory to the system while a process of many threads runs.

Segments, windows and recalled frames stay for minutes, between the tensors of single passes that
are freed at once. What is freed so lies in holes, which malloc keeps for later: half of the memory
of a server with sixteen streams, and growing for as long as it runs. Every few seconds the whole
pages among the holes go back (glibc's malloc_trim), for about 5 ms of CPU time.
"""

import threading
from types import TracebackType

from pipeline.runtime.malloc import return_freed

_EVERY_S = 3.0


class HeapTrimmer:
    """`with HeapTrimmer(): ...`. Does nothing where memory is to be retained, or without glibc."""

    def __init__(self, every_s: float = _EVERY_S) -> None:
        """every_s: seconds from one time to the next."""
        self._every_s, self._end = every_s, threading.Event()
        self._thread = threading.Thread(target=self._run, name="heap-trimmer", daemon=True)

    def __enter__(self) -> "HeapTrimmer":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._end.wait(self._every_s) and return_freed():
            pass
