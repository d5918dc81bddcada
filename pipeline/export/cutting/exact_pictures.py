"""The packets of a clip that begins and ends where it is asked to.

Pictures between the beginning and the next place where a decoder can begin are encoded again, and
so are those at the end that lean on pictures behind it. Everything in between is copied. Knows the
facts of a film; writes nothing.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from typing import Any

import av
import numpy as np

from encoders.sources.container import Container
from encoders.sources.decoding.packet_feed import PacketFeed
from encoders.sources.decoding.pyav_reader import PyAvReader
from encoders.sources.decoding.units import units_of
from encoders.sources.orientation import raw_matrix
from pipeline.export.cutting.bitstream import Bitstream
from pipeline.export.cutting.copied_pictures import (
    EPS_S,
    end_of,
    moved_stamps,
    picture_number,
    stream_of,
)
from pipeline.export.cutting.picture_encoder import (
    FALLBACK,
    as_input,
    can_encode,
    codec_of,
    encoded,
    encoder_name,
    joining_encoder,
    set_up,
)


@dataclass(frozen=True, slots=True)
class ExactPictures:
    """A stretch of a film, and which of its pictures are copied."""

    stream: int  # number in `facts.streams`
    first: int  # number of the first picture
    stop: int  # number behind the last picture
    copied_first: int  # pictures copied_first..copied_stop-1 are copied; none where both are equal
    copied_stop: int
    entry: int  # packets entry..exit-1, in file order, hold them
    exit: int
    zero_ticks: int  # time stamp, in the film, of the clip's beginning
    start: float  # seconds of video time
    end: float  # where the last picture ends

    @classmethod
    def of(
        cls, facts: Container, start: float, end: float, feed: PacketFeed, form: Bitstream | None
    ) -> "ExactPictures":
        """The stretch from `start` to `end`, in seconds. form: of the film's packets; None where
        no other encoder's can stand beside them, so that all are copied or none."""
        first = picture_number(facts, start)
        numbers = facts.packet_pictures
        own = int(np.flatnonzero(numbers == first)[0])
        stream, stop_of_stream, end = stream_of(facts, own, first, end)
        stop = int(np.searchsorted(facts.times, max(end, start + 2 * EPS_S) - EPS_S))
        stop = min(max(stop, first + 1), int(numbers[:stop_of_stream].max()) + 1)
        entry, copied_first = _entry(facts, first, stop, stop_of_stream, feed, form)
        exit, copied_stop = _exit(numbers, entry, copied_first, stop, stop_of_stream)
        if form is None and (copied_first, copied_stop) != (first, stop):
            copied_stop = copied_first
        # whole ticks: on a coarse clock, the second picture could else fall on the first one
        shift = max(math.floor((start - float(facts.times[first])) / float(facts.clock) + 1e-6), 0)
        begin = float(facts.times[first]) + shift * float(facts.clock)
        last_end = min(end, end_of(facts, stop - 1))
        return cls(
            stream,
            first,
            stop,
            copied_first,
            copied_stop,
            entry,
            exit,
            int(facts.packets.stamps[own]) + shift,
            begin,
            max(last_end, begin),
        )

    @property
    def copies(self) -> bool:
        """Whether any picture is copied."""
        return self.copied_stop > self.copied_first

    @property
    def encoded(self) -> int:
        """Pictures that are encoded again."""
        return self.stop - self.first - (self.copied_stop - self.copied_first)

    def packets(
        self, facts: Container, feed: PacketFeed, stream: Any, film: Any, form: Bitstream | None
    ) -> Iterator[tuple[float, Any]]:
        """The packets with their decoding times in seconds. stream: of the clip. film: codec
        context of the film."""
        clock = float(facts.clock)
        ticks, copied = self.stamps(facts)
        head = self._encoded(facts, ticks, self.first, self.copied_first, film, form)
        tail = self._encoded(facts, ticks, self.copied_stop, self.stop, film, form)
        shown_at = np.array([*(at for at, _ in head), *copied[:, 1], *(at for at, _ in tail)])
        decoded_at = np.sort(shown_at)
        decoded_at -= int((decoded_at - shown_at).max())
        parts = chain(head, self._copied(feed, copied, form if head else None), tail)
        for (at, packet), when in zip(parts, decoded_at.tolist(), strict=False):
            packet.pts, packet.dts, packet.stream = at, when, stream
            packet.time_base = facts.clock
            packet.duration = self.lasts(facts, ticks, at)
            yield when * clock, packet

    def _copied(
        self, feed: PacketFeed, copied: np.ndarray, form: Bitstream | None
    ) -> Iterator[tuple[int, Any]]:
        """Ticks and packets of the film. form: where encoded pictures stand before them."""
        by_number = dict(copied.tolist())
        for number, packet in feed.packets(self.entry, self.exit):
            if number in by_number:
                is_seam = form is not None and number == copied[0, 0]
                at = by_number[number]
                yield (
                    at,
                    _replaced(packet, form.copied(bytes(packet))) if is_seam and form else packet,
                )

    def lasts(self, facts: Container, ticks: np.ndarray, at: int) -> int:
        """Ticks for which the picture that is shown at a tick stands. ticks: of all pictures."""
        place = int(np.searchsorted(ticks, at, side="right"))
        end = round((self.end - self.start) / float(facts.clock))
        return max((int(ticks[place]) if place < len(ticks) else end) - at, 1)

    def stamps(self, facts: Container) -> tuple[np.ndarray, np.ndarray]:
        """[pictures] int64 ticks at which each picture is shown; [n, 2] int64 number and ticks of
        each packet that is copied."""
        numbers, stamps = facts.packet_pictures, facts.packets.stamps
        within = np.flatnonzero((numbers >= self.first) & (numbers < self.stop))
        _, places = np.unique(numbers[within], return_index=True)
        ticks = moved_stamps(facts, stamps[within[places]], self.zero_ticks)
        span = np.arange(self.entry, self.exit if self.copies else self.entry)
        span = span[
            ~facts.packets.missing[span]
            & ((numbers[span] < 0) | (numbers[span] >= self.copied_first))
        ]
        own = moved_stamps(facts, stamps[span], self.zero_ticks)
        # the first picture may have begun earlier
        return np.maximum(ticks, 0), np.stack([span, np.maximum(own, 0)], axis=1)

    def _encoded(
        self, facts: Container, ticks: np.ndarray, first: int, stop: int, film: Any,
        form: Bitstream | None,
    ) -> list[tuple[int, Any]]:  # fmt: skip
        """Ticks and packets of pictures first..stop-1: less than two groups of pictures."""
        if stop <= first or form is None:
            return []
        rate = Fraction(facts.rate).limit_denominator(1001)
        coder = joining_encoder(form.codec, film, facts.clock, rate, form.free_number)
        packets = list[Any]()
        for number, frame in decoded(facts, first, stop):
            picture = as_input(frame, int(ticks[number - self.first]), facts.clock)
            packets += encoded(coder, picture)
        packets += encoded(coder, None)
        is_head = first == self.first
        return [
            (
                one.pts,
                _replaced(one, form.encoded(bytes(one), is_last=is_head and one is packets[-1])),
            )
            for one in packets
        ]


class EncodedPictures:
    """All pictures of a stretch, encoded again in a track of their own."""

    def __init__(self, copy: Any, facts: Container, cut: ExactPictures, film: Any) -> None:
        """copy: av container of the clip, which gets the track. film: codec context of the film.
        ValueError where the format cannot hold the track."""
        self._facts, self._cut = facts, cut
        codec = codec_of(film) if can_encode(codec_of(film), film.pix_fmt) else FALLBACK
        pixels = film.pix_fmt if can_encode(codec, film.pix_fmt) else "yuv420p"
        rate = Fraction(facts.rate).limit_denominator(1001)
        self.stream = copy.add_stream(encoder_name(codec), rate=rate)
        set_up(self.stream.codec_context, codec, film, facts.clock, pixels)
        self.stream.time_base = facts.clock
        self.is_as_before = codec == codec_of(film)
        self.name = {"h264": "H.264", "hevc": "H.265"}.get(codec, codec.upper())
        self._pixels = pixels

    def packets(self) -> Iterator[tuple[float, Any]]:
        """The packets with their decoding times in seconds."""
        facts, cut, clock = self._facts, self._cut, self._facts.clock
        ticks, _ = cut.stamps(facts)
        is_first = True
        for number, frame in decoded(facts, cut.first, cut.stop):
            if is_first and (matrix := raw_matrix(frame)) is not None:
                self.stream.set_display_matrix(matrix)
            is_first = False
            if frame.format.name != self._pixels:
                frame = frame.reformat(format=self._pixels)
            frame = as_input(frame, int(ticks[number - cut.first]), clock)
            yield from self._timed(encoded(self.stream, frame), ticks)
        yield from self._timed(encoded(self.stream, None), ticks)

    def _timed(self, packets: Any, ticks: np.ndarray) -> Iterator[tuple[float, Any]]:
        for packet in packets:
            per_tick = float(self._facts.clock / packet.time_base)
            at = round(packet.pts / per_tick)
            packet.duration = round(self._cut.lasts(self._facts, ticks, at) * per_tick)
            yield float(packet.dts * packet.time_base), packet


def decoded(facts: Container, first: int, stop: int) -> Iterator[tuple[int, "av.VideoFrame"]]:
    """The pictures first..stop-1 that a decoder gives, with their numbers."""
    reader = PyAvReader(facts, lambda frame, scaler: frame, np.arange(first, stop))
    passing = reader.pictures(first)
    try:
        for one in passing:
            if first <= one.number < stop:
                yield one.number, one.content()
            if one.number >= stop - 1:
                return
    finally:
        passing.close()


def _entry(
    facts: Container, first: int, stop: int, stop_of_stream: int, feed: PacketFeed,
    form: Bitstream | None,
) -> tuple[int, int]:  # fmt: skip
    """The packet and the picture from which on packets can be copied; picture `stop` where there
    is none."""
    units = units_of(facts)
    unit = int(np.searchsorted(units.edges[:-1], first))
    while unit < len(units.entries):
        entry, picture = int(units.entries[unit]), int(units.edges[unit])
        if picture >= stop or entry >= stop_of_stream:
            break
        if picture == first:
            return entry, picture
        packet = next((one for _, one in feed.packets(entry, entry + 1)), None)
        if form is not None and packet is not None and form.can_follow(bytes(packet)):
            return entry, picture
        unit += 1
    return stop_of_stream, stop


def _exit(
    numbers: np.ndarray, entry: int, first: int, stop: int, stop_of_stream: int
) -> tuple[int, int]:
    """The last place, in file order, up to which packets are whole without the later ones: the
    number behind the last packet, and behind the last picture."""
    seen, highest = set[int](), first - 1
    best = entry, first
    for place in range(entry, stop_of_stream):
        own = int(numbers[place])
        if own >= first:
            if own >= stop:
                break
            seen.add(own)
            highest = max(highest, own)
        # pictures of two fields have two packets
        follows = int(numbers[place + 1]) if place + 1 < stop_of_stream else -1
        if len(seen) == highest - first + 1 and follows not in seen:
            best = place + 1, highest + 1
    return best


def _replaced(packet: Any, data: bytes) -> Any:
    """A packet with other bytes."""
    one = av.Packet(data)
    one.is_keyframe = packet.is_keyframe
    return one
