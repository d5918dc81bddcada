"""The packets of one video stream of a file, and its decoder. Knows a `Container`; no pictures."""

from collections.abc import Iterator
from itertools import chain, islice
from typing import Any

import av
import av.container
import numpy as np
from av.codec.hwaccel import HWAccel

from encoders.sources.container import MAX_PIXELS, Container, open_film
from encoders.sources.packets.scan import MISSING, demux

_SEEK_S = (0.0, 2.0, 30.0)  # seconds before the target to seek to
_FAR_PACKETS, _PROBE_PACKETS = 2000, 64  # packets that are read over instead of a seek


class PacketFeed:
    """The packets of one video stream of a file by their number."""

    def __init__(self, facts: Container, stream: int, hwaccel: HWAccel | None = None) -> None:
        """stream: number in `facts.streams`. hwaccel: the device that decodes; None: software."""
        self._hwaccel = hwaccel
        self._facts, self._index = facts, facts.streams[stream]
        edges = (*facts.firsts, len(facts.packets))
        self._first, self._stop = edges[stream], edges[stream + 1]
        self._open: av.container.InputContainer | None = None
        self._packets: Iterator[av.Packet[Any]] = iter(())
        self._at = self._first  # number of the next packet
        places = facts.packets.bytes[self._first : self._stop]
        # a container that is read from elsewhere must say by its places where it stands
        self._by_place = np.argsort(places, kind="stable")
        ordered = places[self._by_place]
        self._can_seek = (
            facts.pictures is not None
            and not facts.timeline.restarts
            and len(places) > 1
            and int(ordered[0]) >= 0
            and bool((np.diff(ordered) > 0).all())
        )
        self._start()

    @property
    def coder(self) -> "av.VideoCodecContext":
        """The decoder of the open file. One thread: more would lose pictures at damaged packets."""
        return self._coder

    def packets(self, first: int, stop: int) -> Iterator[tuple[int, "av.Packet[Any]"]]:
        """Packets first..stop-1 with their numbers; fewer where the file ends. FFmpegError where it
        cannot be read on.
        """
        if first < self._at or first - self._at > _FAR_PACKETS:
            self._go_to(first)
        while self._at < stop:
            packet = next(self._packets, None)
            if packet is None:
                return
            number, self._at = self._at, self._at + 1
            if number >= first:
                yield number, packet

    def close(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None

    def _start(self) -> None:
        self.close()
        self._open = open_film(self._facts, self._hwaccel)
        stream = self._open.streams[self._index]
        assert isinstance(stream, av.VideoStream)
        self._stream, self._coder = stream, stream.codec_context
        self._coder.thread_count = 1
        self._coder.options = {"max_pixels": str(MAX_PIXELS)}
        self._packets, self._at = demux(self._open, stream), self._first

    def _go_to(self, first: int) -> None:
        """Stand at packet `first` or before it."""
        target = int(self._facts.packets.order[first])
        if self._can_seek and target != MISSING and self._open is not None:
            for back in _SEEK_S:
                self._open.seek(target - int(back / self._facts.clock), stream=self._stream)
                self._packets = demux(self._open, self._stream)
                for packet in islice(self._packets, _PROBE_PACKETS):
                    number = self._number_of(packet)
                    if number is not None:
                        break
                else:
                    continue
                if number <= first:
                    self._packets, self._at = chain((packet,), self._packets), number
                    return
        if first < self._at or self._can_seek:
            self._start()

    def _number_of(self, packet: "av.Packet[Any]") -> int | None:
        if packet.pos is None:
            return None
        table = self._facts.packets
        places = table.bytes[self._first : self._stop]
        at = int(np.searchsorted(places, packet.pos, sorter=self._by_place))
        if at == len(places):
            return None
        number = self._first + int(self._by_place[at])
        same = table.bytes[number] == packet.pos and table.sizes[number] == packet.size
        return number if same else None
