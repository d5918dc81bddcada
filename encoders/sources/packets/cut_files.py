"""Whether a video file was cut off, by what its format says about its own length; and how an MP4
begins. Knows the outermost structure of Matroska, MP4, FLV and AVI.

A demuxer returns the existing part of the last picture as if it were whole, and decoders show it.
"""

import math
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import av

from encoders.sources.packets.scan import PacketTable

_BOXES = 100_000  # boxes of an MP4 that are looked at
_TRACK_BYTES = 1 << 16  # of a track's head
_NEAR_BYTES = 1024
# names of the elements of Matroska (Cues, Tags, Attachments, Chapters) and of AVI's chunks
_AFTER_PICTURES = (
    b"\x1c\x53\xbb\x6b", b"\x12\x54\xc3\x67", b"\x19\x41\xa4\x69", b"\x10\x43\xa7\x70", b"idx1",
    b"JUNK", b"ix00", b"ix01",
)  # fmt: skip
_HEAD_BYTES = 1 << 14  # of an FLV


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
    return False


def has_index_at(path: Path, byte: int) -> bool:
    """True if what may follow the last picture of a whole Matroska or AVI begins here, or soon."""
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


def begins_empty(path: Path) -> bool:
    """True if every track of an MP4 begins with an empty edit: its pictures come later than time 0
    of the film.
    """
    size, empty = path.stat().st_size, []
    with path.open("rb") as file:
        for kind, begin, end in _boxes(file, size):
            if kind != b"moov":
                continue
            file.seek(begin)
            for inner, first, stop in _boxes(file, min(end, size)):
                if inner == b"trak":
                    file.seek(first)
                    empty.append(_track_begins_empty(file.read(min(stop - first, _TRACK_BYTES))))
                    file.seek(stop)
            break
    return bool(empty) and all(empty)


def _track_begins_empty(head: bytes) -> bool:
    """True if the first entry of the edit list shows nothing. head: the first bytes of the box."""
    at = head.find(b"elst") + 4
    if at < 4 or len(head) < at + 28:
        return False
    wide = head[at] == 1
    first = at + 8 + (8 if wide else 4)
    return head[first : first + (8 if wide else 4)] == b"\xff" * (8 if wide else 4)


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


def _riff_is_cut(path: Path) -> bool:
    """True if an AVI is shorter than it states; a running recording states 0."""
    with path.open("rb") as file:
        head = file.read(8)
    stated = int.from_bytes(head[4:8], "little")
    return head[:4] == b"RIFF" and 0 < stated < 0xFFFFFFFF and stated + 8 > path.stat().st_size
