"""Decoders of files with one purpose: pictures by number, scaled and turned upright.

They know the facts of a `Container` and pixels; no sampling rate, no batches of a bank and no user
errors. PyAV's pictures are exact. decord's are one group of pictures off, without a word, wherever
a picture behind a keyframe is shown before it.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import av
import av.container
import numpy as np
from av.video.reformatter import VideoReformatter

from encoders.sources import orientation
from encoders.sources.container import MAX_PIXELS, Container, open_film
from encoders.sources.ffmpeg_name import ffmpeg_name
from encoders.sources.packets.scan import MISSING, demux

# Formats in which decord seeks exactly. In MPEG-TS, `get_batch` returns pictures one second off.
_DECORD_KINDS = ("mov,mp4", "matroska", "avi")
# pictures between keyframes: each batch decodes from a keyframe, so long runs cost quadratic time
_DECORD_RUN = 3000
_CLOCK_S = 5e-3  # decord reports times in float32, which is off by 2 ms after ten hours
_SEEK_S = (0.0, 2.0, 30.0)  # seconds before the target to seek to
_FAR_PACKETS, _PROBE_PACKETS = 2000, 64  # packets that are read over instead of a seek
_SILENT_PICTURES = 5  # a decoder that leaves out more than this without an error is in damage


class DecordError(Exception):
    """decord cannot open the file, or cannot continue."""


def why_not_decord(facts: Container) -> str:
    """The reason not to use decord for this file; empty if there is none."""
    if not facts.kind.startswith(_DECORD_KINDS):
        return f"decord seeks wrongly in {facts.kind}"
    if not facts.is_stamped:
        return "the file has no time stamps"
    if facts.cut_off:
        return "the file is cut off at its end"
    # decord fails at a place that depends on how far it decoded ahead, so two passes would differ
    if facts.torn:
        return "the file is damaged inside"
    if facts.longest_run > _DECORD_RUN:
        return f"{facts.longest_run} pictures lie between two keyframes, too many for decord"
    return ""


class DecordReader:
    """Pictures by number, in rising order. One thread; memory bounded by the scaled size."""

    def __init__(self, facts: Container, width: int, height: int) -> None:
        try:
            import decord  # here: an extra
        except ImportError as error:
            raise DecordError("decord is not installed") from error
        decord.logging.set_level(decord.logging.QUIET)
        self._errors = (decord.DECORDError, IndexError)
        try:
            self._reader = decord.VideoReader(
                ffmpeg_name(facts.path), num_threads=1, width=width, height=height
            )
        except (*self._errors, RuntimeError) as error:
            raise DecordError(f"decord cannot open this file ({facts.codec})") from error
        if len(self._reader) != len(facts.times):  # decord hangs when it reads past the real end
            raise DecordError(
                f"decord counts {len(self._reader)} pictures, the file holds {len(facts.times)}"
            )
        self._times = facts.times

    def pictures(self, numbers: Sequence[int]) -> np.ndarray:
        """[len(numbers), height, width, 3] uint8. DecordError if one of them cannot be decoded."""
        try:
            starts = np.asarray(self._reader.get_frame_timestamp(list(numbers)))[:, 0]
            pixels: np.ndarray = self._reader.get_batch(list(numbers)).asnumpy()
            # frees what was decoded ahead: 119 MB instead of 560 MB on a 640 x 480 file
            self._reader.seek(0)
        except self._errors as error:
            raise DecordError("decord cannot decode on") from error
        if np.abs(starts - self._times[list(numbers)]).max() > _CLOCK_S:
            raise DecordError("decord and the container disagree about time")
        return pixels


@dataclass(frozen=True, slots=True)
class Decoded:
    """A picture that the decoder gave without complaint."""

    number: int  # of the picture in the film
    frame: av.VideoFrame
    after_damage: bool  # something between the picture before and this one could not be decoded


@dataclass(frozen=True, slots=True, eq=False)
class Units:
    """The film in units that are decoded alone: from a packet that a decoder can begin with.

    A pass from the middle so decodes each picture exactly as a whole pass does.
    """

    entries: np.ndarray  # [U] number of the packet that a unit begins with
    # [U + 1] number of a unit's first picture; the last is the number of pictures
    edges: np.ndarray


def units_of(facts: Container) -> Units:
    """The units of a film; a single one where its packets have no time stamps."""
    table, pictures = facts.packets, facts.pictures
    if pictures is None:
        return Units(np.zeros(1, np.int64), np.array([0, len(facts.times)]))
    begins, can_begin = pictures.begins.copy(), table.entries.copy()
    # the first packet of each piece: nothing before it belongs to its pictures
    firsts = [0, *(np.flatnonzero(np.diff(pictures.packet_pieces)) + 1).tolist(), *facts.firsts[1:]]
    sizes = [len(stamps) for stamps in pictures.stamps]
    starts = np.cumsum([0, *sizes])
    can_begin[firsts] = True
    begins[firsts] = starts[pictures.packet_pieces[firsts]]
    # never into the next piece
    entries = np.flatnonzero(can_begin & (begins < starts[pictures.packet_pieces + 1]))
    numbers, first_of = np.unique(begins[entries], return_index=True)
    return Units(entries[first_of], np.append(numbers, len(facts.times)))


class PacketFeed:
    """The packets of one video stream of a file by their number."""

    def __init__(self, facts: Container, stream: int) -> None:
        """stream: number in `facts.streams`."""
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
        self._open = open_film(self._facts)
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


class PyAvReader:
    """Pictures in time order. Leaves out what no wanted picture is decoded from; decodes all around
    damage, and skips from damage to the next keyframe. Never returns a picture that the decoder
    reports as damaged.

    After iteration, `gaps` lists what could not be decoded: (last good time, next good time or None
    if none came).
    """

    def __init__(self, facts: Container, width: int, height: int, numbers: np.ndarray) -> None:
        """numbers: [W] of pictures, rising, of a pass over the whole film."""
        self._facts, self._size = facts, (width, height)
        self._numbers = np.unique(numbers)
        # one for each size: a change of size costs more than the scaling
        self._scalers: defaultdict[tuple[int, int], VideoReformatter]
        self._scalers = defaultdict(VideoReformatter)
        self._units = units_of(facts)
        self.gaps: list[tuple[float, float | None]] = []
        self._last = -1  # number of the last good picture
        self._gap: int | None = None  # number of the last good picture before damage
        count = len(facts.times)
        self._needs = np.zeros(count, dtype=bool)
        self._needs[self._numbers] = True
        self._packet_of = np.zeros(count, dtype=np.int64)  # the last packet of each picture
        if facts.pictures is not None:
            of_packets = facts.pictures.numbers
            has_own = np.flatnonzero(of_packets >= 0)
            self._packet_of[of_packets[has_own]] = has_own
        self._trouble = False

    def pictures(self, first: int) -> Generator[Decoded]:
        """Good pictures in rising order: the wanted ones, and any that were decoded on the way.
        Begins with the unit of picture `first`; more pictures than wanted come around damage.
        """
        self.gaps, self._gap, self._last = [], None, -1
        units, edges = self._units, self._units.edges
        feeds: dict[int, PacketFeed] = {}
        try:
            begin = max(0, int(np.searchsorted(edges, first, side="right")) - 1)
            before = None
            for unit in range(begin, len(units.entries)):
                if not self._needs[edges[unit] : edges[unit + 1]].any():
                    continue
                if self._gap is not None and before is not None and unit > before + 1:
                    self._close_gap(int(edges[before + 1]))
                stream = bisect_right(self._facts.firsts, int(units.entries[unit])) - 1
                if stream not in feeds:
                    feeds[stream] = PacketFeed(self._facts, stream)
                yield from self._unit(feeds[stream], unit)
                before = unit
        finally:
            for feed in feeds.values():
                feed.close()
        if self._gap is not None or self._facts.cut_off:
            self._add_gap(self._time(self._last), None)

    @property
    def is_in_damage(self) -> bool:
        """True if the pictures behind the last one could not be decoded."""
        return self._gap is not None

    def picture(self, frame: av.VideoFrame, size: tuple[int, int] | None = None) -> np.ndarray:
        """[height, width, 3] uint8 RGB, scaled, then turned and mirrored as the file says. size:
        (width, height) of the result; None: that of the reader.
        """
        signs = orientation.matrix(frame)
        lying = orientation.is_lying(signs)
        size = size or self._size
        width, height = size[:: -1 if lying else 1]
        scaled = (
            self._scalers[size]
            .reformat(frame, width, height, "rgb24", interpolation="BILINEAR")
            .to_ndarray()
        )
        return orientation.upright(scaled, signs)

    def _time(self, number: int) -> float:
        return float(self._facts.times[number]) if number >= 0 else -1.0

    def _close_gap(self, number: int) -> None:
        if self._gap is not None:
            self._add_gap(self._time(self._gap), self._time(number))
            self._gap = None

    def _add_gap(self, good: float, again: float | None) -> None:
        """Damage that begins where the last one did goes on: what lay between was not wanted."""
        if self.gaps and self.gaps[-1][0] == good:
            self.gaps.pop()
        self.gaps.append((good, again))

    def _unit(self, feed: PacketFeed, unit: int) -> Iterator[Decoded]:
        self._trouble = self._facts.pictures is None
        if not self._trouble:
            yield from self._numbered(self._quick(feed, unit))
        if self._trouble:
            yield from self._numbered(self._careful(feed, unit))

    def _numbered(self, frames: Iterator[tuple[int, av.VideoFrame]]) -> Iterator[Decoded]:
        for number, frame in frames:
            if number <= self._last:
                continue
            after_damage = self._gap is not None
            self._close_gap(number)
            self._last = number
            yield Decoded(number, frame, after_damage)

    def _quick(self, feed: PacketFeed, unit: int) -> Iterator[tuple[int, av.VideoFrame]]:
        """The wanted pictures of a unit. Ends with `_trouble` at the first sign of damage."""
        first, stop = self._units.edges[unit : unit + 2].tolist()
        targets = np.flatnonzero(self._needs[first:stop]) + first
        entry, last = int(self._units.entries[unit]), int(self._packet_of[targets].max())
        assert self._facts.pictures is not None
        numbers, spare = self._facts.pictures.numbers, self._facts.packets.spare
        waiting = iter(targets.tolist())
        missing = next(waiting, None)
        try:
            for frame in self._frames(feed, entry, last + 1, numbers, spare, first):
                if frame.is_corrupt:
                    self._trouble = True
                    return
                number = self._number(frame, unit)
                if number is None:
                    continue
                if missing is not None and number > missing:
                    self._trouble = True
                    return
                if number == missing:
                    missing = next(waiting, None)
                yield number, frame
        except av.FFmpegError:
            self._trouble = True
            return
        self._trouble = missing is not None

    def _frames(
        self, feed: PacketFeed, entry: int, stop: int, numbers: np.ndarray, spare: np.ndarray,
        first: int,
    ) -> Iterator[av.VideoFrame]:  # fmt: skip
        coder = feed.coder
        if coder.is_open:
            coder.flush_buffers()
        for at, packet in feed.packets(entry, stop):
            number = int(numbers[at])
            if number >= 0 and (number < first or (spare[at] and not self._needs[number])):
                continue
            yield from coder.decode(packet)
        yield from coder.decode(None)

    def _careful(self, feed: PacketFeed, unit: int) -> Iterator[tuple[int, av.VideoFrame]]:
        """All good pictures of a unit. What lies between damage and the next keyframe is lost."""
        first, stop = self._units.edges[unit : unit + 2].tolist()
        pictures, count = self._facts.pictures, 0
        end = len(self._facts.packets)
        if pictures is not None:
            end = int(self._packet_of[first:stop].max()) + 1
        last = self._last
        for frame, packet in self._whole(feed, int(self._units.entries[unit]), end, first):
            if frame is None:
                self._gap = last if self._gap is None else self._gap
                continue
            number = count if pictures is None else self._number(frame, unit)
            count += 1
            if number is None or number <= last or number < packet:
                continue
            if number - last > _SILENT_PICTURES and last >= first:
                self._gap = last if self._gap is None else self._gap
            last = number
            if number < len(self._facts.times):
                yield number, frame

    def _whole(
        self, feed: PacketFeed, entry: int, stop: int, first: int
    ) -> Iterator[tuple[av.VideoFrame | None, int]]:
        """Undamaged frames, each with the number of the first picture that can be good; None where
        frames were lost.
        """
        coder, pictures = feed.coder, self._facts.pictures
        if coder.is_open:
            coder.flush_buffers()
        waiting, floor = False, first
        try:
            for at, packet in feed.packets(entry, stop):
                if pictures is not None and 0 <= pictures.numbers[at] < first:
                    continue
                if waiting and not packet.is_keyframe:
                    continue
                if waiting:
                    # earlier pictures depend on lost ones
                    waiting, floor = False, int(pictures.begins[at]) if pictures is not None else 0
                try:
                    frames = coder.decode(packet)
                except av.FFmpegError:
                    waiting = True
                    frames = self._drain(coder)
                for frame in frames:
                    if frame.is_corrupt:
                        waiting = True
                    else:
                        yield frame, floor
                if waiting:
                    self._drain(coder)
                    yield None, floor
        except av.FFmpegError:
            yield None, floor
            return
        for frame in self._drain(coder):
            yield (None if frame.is_corrupt else frame), floor

    def _number(self, frame: av.VideoFrame, unit: int) -> int | None:
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

    @staticmethod
    def _drain(coder: "av.VideoCodecContext") -> list[av.VideoFrame]:
        """The pictures that the decoder still holds back; resets the decoder for a new start."""
        try:
            delayed = coder.decode(None)
        except av.FFmpegError:
            delayed = []
        coder.flush_buffers()
        return delayed
