"""Runs recalled a moment ago, within a budget of RAM: a follow-up question often lands on the same frames.

Knows nothing of files. The least recently used run goes first.
"""

import threading
from collections import OrderedDict

from memory.schema import Run

Key = tuple[str, int, int, int, bool]  # video id, segment, first ordinal, ordinal after the last, with keys and values


class RunCache:
    """Run by key."""

    def __init__(self, ram_bytes: int) -> None:
        self._left = ram_bytes
        self._runs: OrderedDict[Key, Run] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Key) -> Run | None:
        with self._lock:
            if key in self._runs:
                self._runs.move_to_end(key)
            return self._runs.get(key)

    def keep(self, key: Key, run: Run) -> Run:
        """Hold on to a run, letting go of older ones; one larger than the whole budget just passes through."""
        with self._lock:
            if key not in self._runs:
                self._runs[key] = run
                self._left -= _nbytes(run)
            while self._left < 0:
                self._left += _nbytes(self._runs.popitem(last=False)[1])
        return run

    def forget(self, video_id: str) -> None:
        with self._lock:
            for key in [key for key in self._runs if key[0] == video_id]:
                self._left += _nbytes(self._runs.pop(key))


def _nbytes(run: Run) -> int:
    return run.tokens.tokens.nbytes + run.tokens.pos.nbytes + (0 if run.kv is None else run.kv.nbytes)
