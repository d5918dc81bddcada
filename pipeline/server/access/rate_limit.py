"""How many requests a key may make: a bucket that fills with time. Knows no HTTP."""

import threading
import time
from collections.abc import Callable

_BURST_S = 10.0  # of requests that may come at once


class RateLimit:
    """The buckets of all keys, by id."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._buckets: dict[str, tuple[float, float]] = {}  # tokens, second at which they were

    def wait(self, key_id: str, per_minute: int) -> float:
        """Take a request. 0: it may go on; else seconds after which the next one may."""
        if not per_minute:
            return 0.0
        rate, now = per_minute / 60.0, self._clock()
        most = max(1.0, rate * _BURST_S)
        with self._lock:
            tokens, then = self._buckets.get(key_id, (most, now))
            tokens = min(most, tokens + (now - then) * rate)
            if tokens < 1.0:
                self._buckets[key_id] = (tokens, now)
                return (1.0 - tokens) / rate
            self._buckets[key_id] = (tokens - 1.0, now)
            return 0.0
