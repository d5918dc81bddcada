"""The packets of a clip that begins at a keyframe: copied, with the clip's times.

Knows the facts of a film; decodes nothing and writes nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from encoders.sources.container import Container
from encoders.sources.decoding.packet_feed import PacketFeed
from encoders.sources.decoding.units import units_of
from encoders.sources.packets.scan import MISSING

EPS_S = 1e-3  # Matroska rounds times to milliseconds


@dataclass(frozen=True, slots=True)
class CopiedPictures:
    """The packets from where a decoder can begin, and the clock of everything else."""

    stream: int  # number in `facts.streams`
    first: int  # packets first..stop-1 in file order
    stop: int
    picture: int  # number of the first picture
    zero_ticks: int  # time stamp of that picture
    start: float  # seconds of video time
    end: float  # seconds up to which sound and subtitles are copied
    last_start: float  # of the last picture of the stretch
    last_end: float

    @classmethod
    def of(cls, facts: Container, start: float, end: float) -> "CopiedPictures":
        """From where a decoder can begin, at `start` or before, with what it needs up to `end`."""
        units, numbers, times = units_of(facts), facts.packet_pictures, facts.times
        shown_at = picture_number(facts, start)
        unit = units.of(shown_at)
        first, picture = int(units.entries[unit]), int(units.edges[unit])
        stream, stop_of_stream, end = stream_of(facts, first, picture, end)
        within = np.arange(first, stop_of_stream)
        own = numbers[within]
        wanted = (own >= picture) & (times[np.maximum(own, 0)] < max(end - EPS_S, start + EPS_S))
        last = int(own[wanted].max())
        stop = int(within[wanted].max()) + 1
        zero = int(np.flatnonzero(numbers == picture)[0])
        return cls(
            stream,
            first,
            stop,
            picture,
            int(facts.packets.stamps[zero]),
            float(times[picture]),
            end,
            float(times[last]),
            end_of(facts, last),
        )

    def packets(
        self, facts: Container, feed: PacketFeed, stream: Any
    ) -> Iterator[tuple[float, Any]]:
        """The packets with their decoding times in seconds. stream: of the clip."""
        clock = float(facts.clock)
        copied, ticks, decoded_at = self._stamps(facts)
        place, last = 0, int(copied[np.argmax(ticks)])
        for number, packet in feed.packets(self.first, self.stop):
            if place < len(copied) and number == copied[place]:
                packet.pts, packet.dts = int(ticks[place]), int(decoded_at[place])
                packet.stream = stream
                if not packet.duration and number == last:
                    # without it, a player would show the last picture for no time
                    packet.duration = round((self.last_end - self.last_start) / clock)
                place += 1
                yield packet.dts * clock, packet

    def _stamps(self, facts: Container) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """[n] int64 each: numbers of the packets that are copied, when each one is shown, and when
        it is decoded, in ticks of the clip."""
        table, within = facts.packets, np.arange(self.first, self.stop)
        own = facts.packet_pictures[within]
        # a picture of before the first one needs what is not copied
        numbers = within[~table.missing[within] & ((own < 0) | (own >= self.picture))]
        ticks = moved_stamps(facts, table.stamps[numbers], self.zero_ticks)
        if not (table.order[numbers] == MISSING).any():
            decoded_at = moved_stamps(facts, table.order[numbers], self.zero_ticks)
            if (np.diff(decoded_at) > 0).all() and (decoded_at <= ticks).all():
                return numbers, ticks, decoded_at
        # the file has none, or guesses: Matroska stores no decoding times
        rising = np.sort(ticks)
        late = int((rising - ticks).max())
        return numbers, ticks, rising - late


def picture_number(facts: Container, seconds: float) -> int:
    """Number of the picture that is shown at a second."""
    return max(int(np.searchsorted(facts.times, seconds + EPS_S, side="right")) - 1, 0)


def stream_of(facts: Container, packet: int, picture: int, end: float) -> tuple[int, int, float]:
    """The stream of a packet, the number behind its last packet, and the second at which a stretch
    up to `end` has to stop: a clock that begins anew ends it."""
    edges = (*facts.firsts, len(facts.packets))
    stream = int(np.searchsorted(edges, packet, side="right")) - 1
    if facts.timeline.restarts:
        begin = facts.times[picture] + EPS_S
        part = next(part for part in reversed(facts.timeline.parts) if part.start <= begin)
        end = min(end, part.start + part.seconds)
    return stream, edges[stream + 1], end


def end_of(facts: Container, picture: int) -> float:
    """Seconds of video time at which a picture makes room for the next one."""
    is_last = picture + 1 == len(facts.times)
    return facts.end if is_last else float(facts.times[picture + 1])


def moved_stamps(facts: Container, stamps: np.ndarray, zero_ticks: int) -> np.ndarray:
    """[n] int64 ticks of the film -> ticks of the clip, also behind a clock that began anew."""
    ticks: np.ndarray = stamps - zero_ticks
    wrap = round(facts.timeline.wrap / facts.clock) if facts.timeline.wrap else 0
    return np.where(ticks < -(wrap // 2), ticks + wrap, ticks) if wrap else ticks
