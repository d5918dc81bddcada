"""The wanted pictures of undamaged units. Knows packets and their pictures; no pixels."""

from bisect import bisect_right
from collections.abc import Iterator

import av
import numpy as np
from av.codec.hwaccel import HWAccel

from encoders.sources.container import Container
from encoders.sources.decoding.hardware import planar
from encoders.sources.decoding.packet_feed import PacketFeed
from encoders.sources.decoding.units import Units


class UnitDecoder:
    """Decodes one unit after the other, with decoders of its own, in one thread. Never sends a
    decoder what no wanted picture is decoded from.
    """

    def __init__(
        self,
        facts: Container,
        units: Units,
        wanted: np.ndarray,
        hwaccel: HWAccel | None = None,
    ) -> None:
        """wanted: [T] bool of all pictures. hwaccel: the device that decodes; None: software."""
        self._hwaccel = hwaccel
        self._facts, self._units, self._wanted = facts, units, wanted
        self._feeds: dict[int, PacketFeed] = {}
        self._packet_of = np.zeros(len(wanted), dtype=np.int64)  # the last packet of each picture
        if facts.pictures is not None:
            of_packets = facts.pictures.numbers
            has_own = np.flatnonzero(of_packets >= 0)
            self._packet_of[of_packets[has_own]] = has_own
        # whether the last unit showed a sign of damage, so that pictures of it may be missing
        self.is_damaged = False

    def pictures(self, unit: int) -> Iterator[tuple[int, av.VideoFrame]]:
        """The wanted pictures of a unit with their numbers, and others that were decoded on the
        way. Ends with `is_damaged` at the first sign of damage.
        """
        self.is_damaged = True  # until its last wanted picture has come
        first, stop = self._units.edges[unit : unit + 2].tolist()
        waiting = iter((np.flatnonzero(self._wanted[first:stop]) + first).tolist())
        missing = next(waiting, None)
        try:
            for frame in self._frames(unit):
                if frame.is_corrupt:
                    return
                number = self.number(frame, unit)
                if number is None:
                    continue
                if missing is not None and number > missing:
                    return
                if number == missing:
                    missing = next(waiting, None)
                yield number, frame if self._hwaccel is None else planar(frame)
        except av.FFmpegError:
            return
        self.is_damaged = missing is not None

    def _frames(self, unit: int) -> Iterator[av.VideoFrame]:
        """All that the decoder gives for the packets that the wanted pictures need."""
        first, stop = self._units.edges[unit : unit + 2].tolist()
        targets = np.flatnonzero(self._wanted[first:stop]) + first
        assert self._facts.pictures is not None
        numbers, spare = self._facts.pictures.numbers, self._facts.packets.spare
        feed = self.feed(unit)
        coder = feed.coder
        if coder.is_open:
            coder.flush_buffers()
        last = int(self._packet_of[targets].max())
        for at, packet in feed.packets(int(self._units.entries[unit]), last + 1):
            number = int(numbers[at])
            if number >= 0 and (number < first or (spare[at] and not self._wanted[number])):
                continue
            yield from coder.decode(packet)
        yield from coder.decode(None)

    def feed(self, unit: int) -> PacketFeed:
        """The packets of the stream that holds this unit, and their decoder."""
        stream = bisect_right(self._facts.firsts, int(self._units.entries[unit])) - 1
        if stream not in self._feeds:
            self._feeds[stream] = PacketFeed(self._facts, stream, self._hwaccel)
        return self._feeds[stream]

    def stop_of(self, unit: int) -> int:
        """Number behind the last packet of a unit."""
        first, stop = self._units.edges[unit : unit + 2].tolist()
        return int(self._packet_of[first:stop].max()) + 1

    def number(self, frame: av.VideoFrame, unit: int) -> int | None:
        """The picture of this unit with the frame's stamp; None if there is none."""
        pictures = self._facts.pictures
        if frame.pts is None or pictures is None:
            return None
        piece = int(pictures.packet_pieces[self._units.entries[unit]])
        stamps = pictures.stamps[piece]
        for wrap in pictures.wraps:
            at = int(np.searchsorted(stamps, frame.pts + wrap))
            if at < len(stamps) and stamps[at] == frame.pts + wrap:
                break
        else:
            return None
        number = at + sum(len(before) for before in pictures.stamps[:piece])
        first, stop = self._units.edges[unit : unit + 2]
        return number if first <= number < stop else None

    def close(self) -> None:
        for feed in self._feeds.values():
            feed.close()
        self._feeds.clear()
