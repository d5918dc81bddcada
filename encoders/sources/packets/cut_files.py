"""Whether a video file was cut off, by what its format says about its own length; and how an MP4
begins. Knows the outermost structure of Matroska, MP4, FLV and AVI.

A demuxer returns the existing part of the last picture as if it were whole, and decoders show it.
"""

import math
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import av

from encoders.sources.packets.scan import PacketTable

_BOXES = 100_000  # boxes of an MP4 that are looked at
_TRACK_BYTES = 1 << 16  # of a track's head
_EDITS = 1000  # of a track that are looked at
_NEAR_BYTES = 1024
_ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
# elements of Matroska (Cues, Tags, Attachments, Chapters), boxes of MP4, chunks of AVI
_AFTER_PICTURES = (
    b"\x1c\x53\xbb\x6b", b"\x12\x54\xc3\x67", b"\x19\x41\xa4\x69", b"\x10\x43\xa7\x70", b"idx1",
    b"JUNK", b"moov", b"moof", b"mfra", b"free", b"skip", b"uuid", b"ix00", b"ix01",
)  # fmt: skip
_HEAD_BYTES = 1 << 14  # of an FLV or ASF


def tells_itself(kind: str) -> bool:
    """True for formats whose structure shows whether a file is whole, so that its head need not be
    believed.
    """
    return kind.startswith(("matroska", "mov", "flv", "avi"))


def is_cut(path: Path, kind: str, stream: "av.VideoStream", table: PacketTable) -> bool:
    """True if the file is shorter than its own structure says, or the demuxer gave it up."""
    if table.broken:
        return True
    if kind.startswith("matroska"):
        return _block_is_cut(path)
    if kind.startswith("mov"):
        # the index lists every picture, also those behind the end of the file
        return len(stream.index_entries) > len(table) or _boxes_are_cut(path)
    if kind.startswith("flv"):
        return _tag_is_cut(path)
    if kind.startswith("avi"):
        return _riff_is_cut(path)
    return kind == "asf" and _stated_asf_bytes(path) > path.stat().st_size


def has_index_at(path: Path, byte: int) -> bool:
    """True if what may follow the last picture of a whole file begins here, or soon."""
    with path.open("rb") as file:
        file.seek(max(0, byte - 16))
        window = file.read(16 + _NEAR_BYTES)
    return any(name in window for name in _AFTER_PICTURES)


def _block_is_cut(path: Path) -> bool:
    """True if a Matroska file is shorter than its one big element states."""
    with path.open("rb") as file:
        if file.read(4) != b"\x1a\x45\xdf\xa3":
            return False
        head, _ = _element_size(file)
        file.seek(head, os.SEEK_CUR)
        if file.read(4) != b"\x18\x53\x80\x67":
            return False
        body, is_bounded = _element_size(file)
        return is_bounded and file.tell() + body > path.stat().st_size


def _element_size(file: BinaryIO) -> tuple[int, bool]:
    """The size field of an EBML element, and whether the size is known. Live recordings leave it
    open (all ones).
    """
    first = file.read(1)
    if not first or not first[0]:
        return 0, False
    # the number of leading zeros of the first byte gives the number of bytes that follow
    length = 9 - first[0].bit_length()
    bits = 7 * length
    size = int.from_bytes(first + file.read(length - 1), "big") & ((1 << bits) - 1)
    return size, size != (1 << bits) - 1


def _boxes(file: BinaryIO, end: int) -> Iterator[tuple[bytes, int, int]]:
    """(kind, first byte of the content, end) of the boxes of an MP4 from here on."""
    for _ in range(_BOXES):
        at = file.tell()
        head = file.read(8)
        if at >= end or len(head) < 8:
            return
        size, begin = int.from_bytes(head[:4], "big"), at + 8
        if size == 1:
            size, begin = int.from_bytes(file.read(8), "big"), at + 16
        size = end - at if size == 0 else size
        if size < begin - at:
            return
        yield head[4:8], begin, at + size
        file.seek(at + size)


def _boxes_are_cut(path: Path) -> bool:
    size = path.stat().st_size
    with path.open("rb") as file:
        return any(end > size for _, _, end in _boxes(file, size))


@dataclass(frozen=True, slots=True)
class _Track:
    """What an MP4 states of a track."""

    seconds: float  # of its media
    edits: tuple[tuple[float, bool], ...]  # (seconds, whether the edit shows nothing)


def begins_empty(path: Path) -> bool:
    """True if every track of an MP4 begins with an empty edit: its pictures come later than time 0
    of the film.
    """
    tracks = _tracks(path)
    return bool(tracks) and all(bool(track.edits) and track.edits[0][1] for track in tracks)


def is_trimmed(path: Path) -> bool:
    """True if an MP4 holds pictures that an edit list leaves out on purpose."""
    return any(
        track.edits
        and sum(seconds for seconds, empty in track.edits if not empty) < track.seconds - 1
        for track in _tracks(path)
    )


def _tracks(path: Path) -> list[_Track]:
    size, scale = path.stat().st_size, 0
    tracks: list[_Track] = []
    with path.open("rb") as file:
        for kind, begin, end in _boxes(file, size):
            if kind != b"moov":
                continue
            file.seek(begin)
            for inner, first, stop in _boxes(file, min(end, size)):
                file.seek(first)
                head = file.read(min(stop - first, _TRACK_BYTES))
                if inner == b"mvhd":
                    scale = _numbers(head, 12, 20)[0]
                elif inner == b"trak":
                    tracks.append(_track(head, scale or 1))
                file.seek(stop)
            break
    return tracks


def _track(head: bytes, scale: int) -> _Track:
    """head: the first bytes of the track's box; scale: ticks of the film a second."""
    at = head.find(b"mdhd") + 4
    media_scale, ticks = _numbers(head[at:], 12, 20) if at > 3 else (1, 0)
    edits = []
    at = head.find(b"elst") + 4
    if at > 3 and len(head) >= at + 8:
        wide = head[at] == 1
        count, at = int.from_bytes(head[at + 4 : at + 8], "big"), at + 8
        width = 8 if wide else 4
        for _ in range(min(count, _EDITS)):
            entry, at = head[at : at + 2 * width], at + 2 * width + 4
            empty = entry[width:] == b"\xff" * width
            edits.append((int.from_bytes(entry[:width], "big") / scale, empty))
    return _Track(ticks / (media_scale or 1), tuple(edits))


def _numbers(head: bytes, narrow: int, wide: int) -> tuple[int, int]:
    """Ticks a second and length in ticks of a head whose first byte is its version."""
    at, width = (wide, 8) if head[:1] == b"\1" else (narrow, 4)
    return (
        int.from_bytes(head[at : at + 4], "big"),
        int.from_bytes(head[at + 4 : at + 4 + width], "big"),
    )


def _tag_is_cut(path: Path) -> bool:
    """True if the last tag of an FLV is not followed by its own length, or if its head states a
    larger file.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        at = (head := file.read(_HEAD_BYTES)).find(b"filesize\0") + 9
        stated = struct.unpack(">d", head[at : at + 8])[0] if 9 <= at <= len(head) - 8 else 0.0
        if size < stated < math.inf:
            return True
        if size < 13 + 15:
            return True
        file.seek(size - 4)
        length = int.from_bytes(file.read(4), "big")
        if not 11 <= length <= size - 17:
            return True
        file.seek(size - 4 - length)
        head = file.read(4)
        return int.from_bytes(head[1:], "big") + 11 != length


def _stated_asf_bytes(path: Path) -> int:
    """The size of an ASF file by its head; 0 if it states none."""
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    at = head.find(_ASF_PROPERTIES) + 40  # name, length, id of the file: 16 + 8 + 16 bytes
    return int.from_bytes(head[at : at + 8], "little") if 40 <= at <= len(head) - 8 else 0


def _riff_is_cut(path: Path) -> bool:
    """True if an AVI is shorter than it states; a running recording states 0."""
    with path.open("rb") as file:
        head = file.read(8)
    stated = int.from_bytes(head[4:8], "little")
    return head[:4] == b"RIFF" and 0 < stated < 0xFFFFFFFF and stated + 8 > path.stat().st_size
