"""The banks of streams beside the server's own.

Each is open while a stream or a request uses it. The last one to let go closes it, so that another
process can write it and nothing of it stays in memory. Knows no stream and no HTTP.
"""

import threading
from collections.abc import Callable
from functools import partial

from pipeline.qa import VideoQA
from pipeline.server.access.key import absolute


class StreamBanks:
    """Threads: any."""

    def __init__(self, open_bank: Callable[[str, float], VideoQA]) -> None:
        """open_bank: the parts for a bank, by folder and frames per second."""
        self._open_bank = open_bank
        # opening and closing take long: who uses a bank that is open waits for neither
        self._changing, self._lock = threading.RLock(), threading.Lock()
        self._open: dict[str, VideoQA] = {}  # by folder
        self._users: dict[str, int] = {}  # streams and requests, by folder

    def take(self, folder: str, fps: float) -> VideoQA:
        """The parts for the bank of an absolute folder, which stays open until `release`. Errors of
        `open_bank`."""
        with self._changing:
            qa = self._open.get(folder) or self._open_bank(folder, fps)
            with self._lock:
                self._open[folder] = qa
                self._users[folder] = self._users.get(folder, 0) + 1
            return qa

    def hold(self, qa: VideoQA) -> Callable[[], None]:
        """Keep a bank open until the function that this gives is called. KeyError where it has been
        closed, or is about to be."""
        folder = absolute(qa.bank.root)
        with self._lock:
            # a bank that was opened again is another one
            if not self._users.get(folder) or self._open[folder].bank is not qa.bank:
                raise KeyError(folder)
            self._users[folder] += 1
        return partial(self.release, folder)

    def release(self, folder: str) -> None:
        """Use the bank of a folder no more, once for each `take`."""
        with self._lock:
            self._users[folder] -= 1
            if self._users[folder]:
                return
        with self._changing:
            with self._lock:
                if self._users.get(folder):  # somebody has taken it meanwhile
                    return
                self._users.pop(folder, None)
                qa = self._open.pop(folder, None)
            if qa is not None:
                qa.bank.close()
