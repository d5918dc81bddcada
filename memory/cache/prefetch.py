"""Reads what the next question may need while no question waits.

Knows no frames: a job is a function that stops when asked to. Only the newest job counts, because a
new question makes an older guess useless.
"""

import itertools
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue

Job = Callable[[Callable[[], bool]], None]
"""Works piece by piece, and returns once the function that it receives says so."""


class Prefetcher:
    """Runs jobs in one thread, which starts with the object."""

    def __init__(self) -> None:
        # SimpleQueue: the garbage collector may put into it in the middle of anything
        self._jobs: SimpleQueue[tuple[int, Job] | None] = SimpleQueue()
        self._numbers = itertools.count(1)
        self._submitted = self._done = 0
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="bank-prefetch", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Do this next, and stop the running job."""
        if not self._closed:
            self._submitted = next(self._numbers)
            self._jobs.put((self._submitted, job))

    def wait(self, timeout: float) -> bool:
        """Wait until every job is done; False after `timeout` seconds. For tests and
        measurements."""
        until = time.monotonic() + timeout
        while self._done < self._submitted and time.monotonic() < until:
            time.sleep(0.001)
        return self._done >= self._submitted

    def close(self) -> None:
        """Stop; takes as long as the current piece of work."""
        self._closed = True
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (next_job := self._jobs.get()) is not None:
            number, job = next_job
            if not self._is_stale():
                job(self._is_stale)
            self._done = number

    def _is_stale(self) -> bool:
        return self._closed or not self._jobs.empty()
