"""One connection to a live stream, read in a thread of its own. Knows clocks and threads; no PyAV.

A library that reads a stream may never return: PyAV waits forever for packets of the streams that
it found when it connected, while a sender goes on under other numbers. Such a connection is
abandoned: its thread ends with the next packet, or with the connection.
"""

import threading
import time
from collections.abc import Callable


class Connection:
    """Runs `read(connection)` in a thread. `read` calls `touch` for each packet and `count_picture`
    for each picture, and returns when `is_abandoned`.
    """

    def __init__(self, read: Callable[["Connection"], None]) -> None:
        self._read = read
        self._ended = threading.Event()
        # monotonic second up to which it needs no packet; None until the stream is open
        self._alive_until: float | None = None
        self.is_abandoned = False
        self.error: Exception | None = None  # what ended it
        self.last_picture: float | None = None  # monotonic second; None if none has come
        self._thread = threading.Thread(target=self._run, name="live-connection", daemon=True)
        self._thread.start()

    def touch(self, seconds: float = 0.0) -> None:
        """A packet has come, and the next one is not read for these seconds."""
        self._alive_until = time.monotonic() + seconds

    def count_picture(self) -> None:
        """A picture was handed on."""
        self.last_picture = time.monotonic()

    def silent_for(self, seconds: float) -> bool:
        """True if no packet has come for so long."""
        return self._alive_until is not None and time.monotonic() > self._alive_until + seconds

    def wait(self, seconds: float) -> bool:
        """Wait for the end, at most for so long. True if it has ended."""
        return self._ended.wait(seconds)

    def _run(self) -> None:
        try:
            self._read(self)
        except Exception as error:  # judged by the thread that waits for the end
            self.error = error
        finally:
            self._ended.set()
