"""Seconds per stage, measured by an object that is passed in. Knows no stage by name."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class StageTimer:
    """`with timer("search"): ...` adds to the seconds of that stage. One object per question or
    video. Several threads may add to it at a time, each to stages of its own."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._start = time.perf_counter()

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start

    def total(self) -> float:
        """Seconds since the object was made."""
        return time.perf_counter() - self._start
