"""The packets of a video stream as a table, read without decoding: what they show, and which of
them a decoder can begin with or leave out.

Knows packets and the few bits of a codec's syntax that answer this. A decoder can begin with an
entry: every picture from the entry's own on then comes out as in a pass from the beginning. A
keyframe flag alone does not promise that: with intra refresh, flagged pictures need those before.
"""

from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import av
import av.container
import numpy as np

from encoders.sources.packets.av1 import Av1Frames

MISSING = -(1 << 63)  # in `order`
# codecs whose keyframes are whole, and which show what they reference in an order that a scan sees
_ENTERS_AT_KEYS = frozenset(
    "mpeg1video mpeg2video mpeg4 h263 flv1 vp8 vp9 mjpeg prores dnxhd theora vc1 wmv3 "
    "rawvideo ffv1 huffyuv ffvhuff utvideo dvvideo".split()
)
_H264_SLICES, _H264_IDR, _H264_SEI = range(1, 6), 5, 6
_RECOVERY_POINT = 6  # type of the H.264 message that says how many pictures a decoder needs
_HEVC_ENTRIES = range(16, 22)
_HEVC_SLICES = range(32)
_KEY, _ENTRY, _SPARE, _HIDDEN = 1, 2, 4, 8


@dataclass(frozen=True, slots=True, eq=False)
class PacketTable:
    """[P] arrays over the packets of one video stream in file order."""

    stamps: np.ndarray  # int64 presentation time in ticks; 0 where there is none
    missing: np.ndarray  # bool: True for a packet without a time stamp
    order: np.ndarray  # int64 decoding time in ticks; MISSING where there is none
    bytes: np.ndarray  # int64: where the packet lies in the file; -1 = unknown
    sizes: np.ndarray  # int64 bytes
    keys: np.ndarray  # bool: flagged as a keyframe
    entries: np.ndarray  # bool: a decoder can begin here
    spare: np.ndarray  # bool: no other picture is decoded from this one
    hidden: np.ndarray  # bool: an edit list hides the picture
    last_ticks: int  # duration of the picture that is shown last; 0 = unknown
    torn: bool  # a packet's inner lengths do not add up: decoders will fail there
    broken: bool  # the demuxer gave up before the end of the file

    def __len__(self) -> int:
        return len(self.stamps)

    @property
    def has_stamps(self) -> bool:
        """True if every picture has a time stamp. A few missing ones make the order of all of them
        doubtful.
        """
        visible = ~self.hidden
        return bool(visible.any()) and not bool(self.missing[visible].any())


@dataclass(frozen=True, slots=True)
class _Syntax:
    """What the bits of one packet say."""

    entry: bool = False
    spare: bool = False
    torn: bool = False
    linked: bool = False  # pictures depend on each other in ways that `spare` does not know


def demux(
    container: "av.container.InputContainer", *streams: "av.stream.Stream"
) -> Iterator["av.Packet[Any]"]:
    """Packets with content, in file order. FFmpegError where the file cannot be read on.

    Streams that appear in the middle of a file are left out: PyAV knows those of its beginning.
    """
    try:
        yield from (packet for packet in container.demux(*streams) if packet.size)
    except IndexError:
        # PyAV's end marker for a stream that appeared in the middle: all packets have come
        return


def scan(container: "av.container.InputContainer", stream: "av.VideoStream") -> PacketTable:
    """Read all packets of the stream from where the container stands."""
    stamps, order, places = array("q"), array("q"), array("q")
    sizes, durations = array("q"), array("q")
    flags = bytearray()
    torn = broken = linked = False
    read = _reader_of(stream)
    try:
        for packet in demux(container, stream):
            stamp, decoded_at = packet.pts, packet.dts
            stamps.append(MISSING if stamp is None else stamp)
            order.append(MISSING if decoded_at is None else decoded_at)
            places.append(-1 if packet.pos is None else packet.pos)
            sizes.append(packet.size)
            durations.append(packet.duration or 0)
            is_key = packet.is_keyframe
            syntax = read(packet, is_key)
            torn, linked = torn or syntax.torn, linked or syntax.linked
            flags.append(
                is_key * _KEY
                | syntax.entry * _ENTRY
                | syntax.spare * _SPARE
                | packet.is_discard * _HIDDEN
            )
    except av.FFmpegError:
        broken = True  # the packets so far count
    marks = np.frombuffer(bytes(flags), dtype=np.uint8)
    marks = marks & ~np.uint8(_SPARE) if linked else marks
    return _table(stamps, order, places, sizes, durations, marks, torn, broken)


def _table(
    stamps: array, order: array, places: array, sizes: array, durations: array,
    marks: np.ndarray, torn: bool, broken: bool,
) -> PacketTable:  # fmt: skip
    times = np.array(stamps, dtype=np.int64)
    missing = times == MISSING
    visible = np.flatnonzero(~missing & (marks & _HIDDEN == 0))
    last = int(visible[np.argmax(times[visible])]) if len(visible) else -1
    entries = (marks & _ENTRY).astype(bool)
    if len(entries):
        entries[0] = True  # there is nowhere earlier to begin
    return PacketTable(
        stamps=np.where(missing, 0, times),
        missing=missing,
        order=np.array(order, dtype=np.int64),
        bytes=np.array(places, dtype=np.int64),
        sizes=np.array(sizes, dtype=np.int64),
        keys=(marks & _KEY).astype(bool),
        entries=entries,
        spare=(marks & _SPARE).astype(bool),
        hidden=(marks & _HIDDEN).astype(bool),
        last_ticks=int(durations[last]) if last >= 0 else 0,
        torn=torn,
        broken=broken,
    )


def join(tables: Sequence[PacketTable]) -> PacketTable:
    """The packets of several streams, one stream behind the other."""
    if len(tables) == 1:
        return tables[0]
    columns = {
        field.name: np.concatenate([getattr(table, field.name) for table in tables])
        for field in fields(PacketTable)
        if isinstance(getattr(tables[0], field.name), np.ndarray)
    }
    return PacketTable(
        **columns,
        last_ticks=tables[-1].last_ticks,
        torn=any(table.torn for table in tables),
        broken=any(table.broken for table in tables),
    )


def _reader_of(stream: "av.VideoStream") -> Callable[["av.Packet[Any]", bool], _Syntax]:
    """What reads the bits of this codec's packets."""
    name = stream.codec_context.name
    head = bytes(stream.codec_context.extradata or b"")
    if name in ("h264", "hevc"):
        at = 4 if name == "h264" else 21
        prefix = (head[at] & 3) + 1 if len(head) > at and head[0] == 1 else 0
        one = _h264 if name == "h264" else _hevc
        return lambda packet, is_key: one(bytes(packet), prefix, is_key)
    if name in ("mpeg1video", "mpeg2video"):
        return lambda packet, is_key: _Syntax(is_key, not is_key and _only_b(bytes(packet)))
    if name == "mpeg4":
        return lambda packet, is_key: _mpeg4(bytes(packet), is_key)
    if name in ("av1", "libdav1d"):
        frames = Av1Frames(head)
        return lambda packet, is_key: _Syntax(is_key, frames.is_spare(bytes(packet)))
    enters = name in _ENTERS_AT_KEYS
    both = {is_key: _Syntax(entry=is_key and enters) for is_key in (False, True)}
    return lambda packet, is_key: both[is_key]


def _units(data: bytes, prefix: int) -> Iterator[tuple[int, int]]:
    """(first byte, end) of each unit: behind length fields of `prefix` bytes, or start codes."""
    if prefix:
        at = 0
        while at + prefix < len(data):
            size = int.from_bytes(data[at : at + prefix], "big")
            at += prefix
            yield at, at + size
            at += size
        return
    at = data.find(b"\0\0\1") + 3
    while at >= 3:
        after = data.find(b"\0\0\1", at)
        yield at, after if after >= 0 else len(data)
        at = after + 3 if after >= 0 else 0


def _h264(data: bytes, prefix: int, is_key: bool) -> _Syntax:
    """An entry is an IDR picture, or one from which decoders recover at once."""
    entry, spare, recovers = is_key, True, False
    slices = end = 0
    for at, stop in _units(data, prefix):
        end = stop
        kind = data[at] & 31 if at < len(data) else 0
        if kind in _H264_SLICES:
            slices += 1
            entry = entry and kind == _H264_IDR
            spare = spare and not data[at] & 0x60
        elif kind == _H264_SEI and is_key:
            recovers = recovers or _recovers_at_once(data[at + 1 : end])
    torn = bool(prefix) and end != len(data)
    return _Syntax(bool(slices) and is_key and (entry or recovers), spare and slices > 0, torn)


def _recovers_at_once(messages: bytes) -> bool:
    """True if a recovery point among these SEI messages counts 0 pictures (its first bit is 1)."""
    at = 0
    while at + 2 < len(messages):
        kind = size = 0
        while at < len(messages) and messages[at] == 255:
            kind, at = kind + 255, at + 1
        if at + 1 >= len(messages):
            return False
        kind, at = kind + messages[at], at + 1
        while at < len(messages) and messages[at] == 255:
            size, at = size + 255, at + 1
        if at >= len(messages):
            return False
        size, at = size + messages[at], at + 1
        if kind == _RECOVERY_POINT:
            return at < len(messages) and messages[at] >= 128
        at += size
    return False


def _hevc(data: bytes, prefix: int, is_key: bool) -> _Syntax:
    """An entry is any random access point. With temporal sub-layers, a picture that its own layer
    does not need may be needed above.
    """
    entry, spare, slices, end, top = is_key, True, 0, 0, 1
    for at, stop in _units(data, prefix):
        end = stop
        if at + 1 >= len(data):
            continue
        kind, layer = data[at] >> 1 & 63, data[at + 1] & 7
        if kind in _HEVC_SLICES:
            slices += 1
            entry = entry and kind in _HEVC_ENTRIES
            spare = spare and kind < 16 and kind % 2 == 0
            top = max(top, layer)
    torn = bool(prefix) and end != len(data)
    return _Syntax(entry and slices > 0, spare and slices > 0, torn, linked=top > 1)


def _mpeg4(data: bytes, is_key: bool) -> _Syntax:
    """Packed streams put two pictures into one packet."""
    at = data.find(b"\0\0\1\xb6")
    if at < 0 or at + 4 >= len(data):
        return _Syntax(entry=is_key)
    packed = data.find(b"\0\0\1\xb6", at + 4) >= 0
    return _Syntax(is_key, data[at + 4] >> 6 == 2, linked=packed)


def _only_b(data: bytes) -> bool:
    """True if all picture headers of an MPEG-1 or MPEG-2 packet are of B-pictures."""
    at, has_picture = data.find(b"\0\0\1\0"), False
    while 0 <= at < len(data) - 5:
        if data[at + 5] >> 3 & 7 != 3:
            return False
        has_picture, at = True, data.find(b"\0\0\1\0", at + 4)
    return has_picture
