"""One clock for everything in a video file: stream time <-> video time, in seconds.

Stream time is what the container stamps on packets: it may begin anywhere, and it begins again in
recordings that were put one behind the other. Video time begins with what players show first, and
only rises. Knows numbers; no file and no decoder (encoders/sources/container.py makes timelines).
"""

from bisect import bisect_right
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TimelinePart:
    """A part of the file whose stream time runs on without a restart."""

    first_byte: int  # where its first picture lies in the file; 0 for the first part
    last_byte: int  # where its last picture lies
    stream_start: float  # stream time of the beginning, in seconds
    start: float  # video time of the beginning, in seconds
    seconds: float  # length of the part


@dataclass(frozen=True, slots=True)
class Timeline:
    """The parts of one file, in file order, which is the order of video time."""

    parts: tuple[TimelinePart, ...]
    # seconds of video time at which the last picture or sound ends
    end: float
    # what was bridged or corrected, one clause each
    notes: tuple[str, ...] = ()
    # seconds after which the container's clock begins again by design; 0 = it never does
    wrap: float = 0.0

    def seconds(self, stream_time: float, byte: int | None = None) -> float:
        """Video time of a stream time. byte: where the packet lies in the file (`packet.pos`); it
        decides between parts that hold the same stream time. None or negative: the first part whose
        stream time fits. The result may be negative or beyond the end.
        """
        part = self._part_with(stream_time, byte)
        if self.wrap and _distance(part, stream_time + self.wrap) < _distance(part, stream_time):
            stream_time += self.wrap
        return stream_time - part.stream_start + part.start

    def stream_time(self, seconds: float) -> tuple[float, int]:
        """The inverse, for seeking: stream time, and the byte at which its part begins."""
        number = max(0, bisect_right([part.start for part in self.parts], seconds) - 1)
        part = self.parts[number]
        stream_time = seconds - part.start + part.stream_start
        return (stream_time % self.wrap if self.wrap else stream_time), part.first_byte

    @property
    def restarts(self) -> bool:
        """True if stream time begins again: then seeking by time misses, so read from the
        beginning.
        """
        return len(self.parts) > 1

    def _part_with(self, stream_time: float, byte: int | None) -> TimelinePart:
        if len(self.parts) == 1:
            return self.parts[0]
        candidates = self.parts
        if byte is not None and byte >= 0:
            after = bisect_right([part.first_byte for part in self.parts], byte)
            last = self.parts[max(0, after - 1)]
            if byte <= last.last_byte or after == len(self.parts):
                # before the first picture of a part, its sound can lie among the pictures before
                return last
            # between the pictures of two parts: either can own the packet
            candidates = self.parts[max(0, after - 1) : after + 1]
        shifts = (0.0, self.wrap)
        return min(
            candidates,
            key=lambda part: min(_distance(part, stream_time + shift) for shift in shifts),
        )


def _distance(part: TimelinePart, stream_time: float) -> float:
    """Seconds between a stream time and a part; 0 inside."""
    late = stream_time - part.stream_start - part.seconds
    return max(part.stream_start - stream_time, late, 0.0)
