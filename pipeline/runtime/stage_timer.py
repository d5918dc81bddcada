"""Seconds per stage, as a wrapper object that is handed in. Knows no stage by name."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """`with clock("search"): ...` adds to that stage's seconds. One object per question or video. Several threads may
    add to it at a time, each to stages of its own."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._began = time.perf_counter()

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - began

    def total(self) -> float:
        """Seconds since the clock was made."""
        return time.perf_counter() - self._began
