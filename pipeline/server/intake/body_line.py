"""Bounds the request bodies that are under way, in number and in bytes, over all requests.

Knows neither HTTP paths nor JSON. A body that hardly arrives gives way to the next one, so that
clients who stop half-way keep nobody out. For the event loop only.
"""

import asyncio
import time

from starlette.types import Message, Receive

from pipeline.server.errors import ApiError

_SLOW_BYTES_S = 16_000  # a body that arrives more slowly gives way when there is no room
_SLOW_AFTER_S = 5.0  # over so many seconds


class BodyLine:
    """Counts bodies from their first byte until the request closes its `Arrival`."""

    def __init__(self, what: str, count: int, nbytes: float) -> None:
        """what: plural noun for error messages, such as "uploads".

        count, nbytes: limits for all bodies together.
        """
        self.nbytes = 0  # of all bodies that are under way
        self._what, self._max_count, self._max_bytes = what, count, nbytes
        self._arrivals: list[Arrival] = []

    def __len__(self) -> int:
        return len(self._arrivals)

    def enter(self) -> "Arrival":
        """Begin to receive a body. ApiError 429 when there are too many."""
        if len(self._arrivals) >= self._max_count and not self._drop_slowest(self._arrivals):
            raise self._full(f"{len(self._arrivals)} {self._what} arrive already")
        arrival = Arrival(self)
        self._arrivals.append(arrival)
        return arrival

    def make_room(self, arrival: "Arrival", nbytes: int) -> None:
        """Called by `Arrival` only: take room for so many more bytes. ApiError 429 without it."""
        while self.nbytes + nbytes > self._max_bytes:
            if not self._drop_slowest([other for other in self._arrivals if other is not arrival]):
                raise self._full(
                    f"The {self._what} that arrive have {self.nbytes / 1e6:.3g} MB already"
                )
        self.nbytes += nbytes

    def remove(self, arrival: "Arrival") -> None:
        """Called by `Arrival` only: it is closed."""
        if arrival in self._arrivals:
            self._arrivals.remove(arrival)
            self.nbytes -= arrival.nbytes

    def _drop_slowest(self, arrivals: list["Arrival"]) -> bool:
        """Have one of them give way that hardly arrives. Whether there was one."""
        slow = [arrival for arrival in arrivals if arrival.rate() < _SLOW_BYTES_S]
        if slow:
            min(slow, key=Arrival.rate).drop()
        return bool(slow)

    def _full(self, why: str) -> ApiError:
        return ApiError(429, f"{why}; try again later.", code="rate_limit_exceeded", retry_after=5)


class Arrival:
    """A body that is under way, or in memory after it arrived. `close` gives its room back."""

    def __init__(self, line: BodyLine) -> None:
        self.nbytes = 0
        self._line = line
        self._dropped = self._complete = False
        self._waiting: asyncio.Timeout | None = None
        self._last_byte = self._since = time.monotonic()
        self._since_bytes, self._last_rate = 0, float("inf")

    async def receive(self, receive: Receive, seconds: float) -> Message:
        """The next message of the request.

        TimeoutError when it does not come within so many seconds, ApiError 408 when the body had to
        give way, 429 when its bytes find no room.
        """
        if not self._dropped:
            try:
                async with asyncio.timeout(seconds) as self._waiting:
                    message = await receive()
            except TimeoutError:
                if not self._dropped:
                    raise
            finally:
                self._waiting = None
        if self._dropped:
            raise ApiError(408, "The request came too slowly, and others were waiting.")
        self._add(len(message.get("body", b"")))
        self._complete = not message.get("more_body", False)
        return message

    def rate(self) -> float:
        """Bytes per second, lately. inf for a body that has just begun or is complete."""
        now = time.monotonic()
        if self._complete:
            return float("inf")
        if now - self._last_byte >= _SLOW_AFTER_S:
            return 0.0
        if now - self._since < _SLOW_AFTER_S:
            return self._last_rate
        return (self.nbytes - self._since_bytes) / (now - self._since)

    def drop(self) -> None:
        """Give way: the room is free at once, and the request fails where it waits."""
        self._dropped = True
        self.close()
        if self._waiting is not None:
            self._waiting.reschedule(0.0)

    def close(self) -> None:
        """Give the room back. May be called again."""
        self._line.remove(self)

    def _add(self, nbytes: int) -> None:
        self._line.make_room(self, nbytes)
        self.nbytes += nbytes
        self._last_byte = now = time.monotonic()
        if now - self._since >= _SLOW_AFTER_S:
            self._last_rate = self.rate()
            self._since, self._since_bytes = now, self.nbytes
