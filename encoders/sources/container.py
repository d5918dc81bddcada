"""Facts about a video file, read without decoding: fingerprint, length, and the time of every
picture.

Knows the container (through PyAV's demuxer) and no decoder's pictures. Times are seconds from the
first picture. The scan reads the whole file once. It lets two decoders agree on time, and it
detects files that were cut off.
"""

import hashlib
import os
from array import array
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import av
import av.container
import av.stream
import numpy as np

from encoders.errors import FileError, UserError

WINDOW_BYTES, WINDOWS = 64 * 1024, 16
CUT_OFF_S = 1.0  # a file whose last packet is further than this from its stated end was cut off
# formats that FFmpeg also opens as video: stills, and any text file
_PICTURES = ("image2", "_pipe", "tty")


@dataclass(frozen=True, slots=True)
class Container:
    """The facts of one file that decoders need."""

    path: Path
    kind: str  # FFmpeg's name of the format, such as "matroska,webm"
    codec: str
    stream: int  # index of the video stream
    clock: Fraction  # seconds per tick of a time stamp
    zero: int  # time stamp of the first picture
    # [P] float64 seconds of every picture, rising; empty without time stamps
    times: np.ndarray = field(repr=False)
    longest_run: int  # pictures between two keyframes, at most
    # mean pictures per second as stated; only used if time stamps are missing
    rate: float
    duration: float  # seconds
    cut_off: bool  # the file ends before its stated length
    torn: bool  # packets whose inner lengths do not add up: decoders will fail there

    def seconds(self, stamp: int) -> float:
        """Time stamp to seconds: bit for bit the number that `times` holds for it."""
        return (stamp - self.zero) * self.clock.numerator / self.clock.denominator

    @property
    def step(self) -> float:
        """The usual seconds from one picture to the next."""
        return float(np.median(np.diff(self.times))) if len(self.times) > 1 else 1.0 / self.rate


def fingerprint(path: Path) -> str:
    """16 hex digits over the size and up to 16 evenly spaced windows: equal for copies under any
    name.
    """
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    spread = range(WINDOWS) if size > WINDOWS * WINDOW_BYTES else range(1)
    length = WINDOW_BYTES if len(spread) > 1 else size
    with path.open("rb") as file:
        for number in spread:
            file.seek((size - length) * number // max(1, len(spread) - 1))
            digest.update(file.read(length))
    return digest.hexdigest()[:16]


def check_file(path: Path) -> None:
    """UserError for what cannot be a video, before any library opens it."""
    if not path.exists():
        raise UserError(f"There is no file {path}; check the path")
    if path.is_dir():
        raise FileError(path, "is a folder; give the path of one video file")
    if not path.is_file():
        raise FileError(path, "is not a regular file; give the path of one video file")
    if path.stat().st_size == 0:
        raise FileError(path, "is empty (0 bytes); copy or download it again")


def inspect(path: Path) -> Container:
    """Read the facts. UserError with the reason if the file is not a video."""
    check_file(path)
    try:
        with av.open(str(path), metadata_errors="replace") as container:
            return _facts(path, container)
    except PermissionError as error:
        raise FileError(path, "may not be read; change its permissions") from error
    except av.FFmpegError as error:
        raise FileError(
            path,
            f"is not a video that can be read ({error.strerror}); if it should be one, the file is "
            "damaged or "
            "incomplete, so copy or download it again",
        ) from error


def _facts(path: Path, container: "av.container.InputContainer") -> Container:
    kind = container.format.name
    streams = [
        s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic
    ]
    if any(word in kind for word in _PICTURES):
        raise FileError(
            path, "is a still picture or a text, not a video; give the path of one video file"
        )
    if not streams:
        what = "only sound" if container.streams.audio else "no pictures"
        raise FileError(path, f"holds {what} and no video stream; give a file with pictures")
    stream = container.streams.best("video")
    stream = stream if stream in streams else streams[0]
    if stream.codec_context is None or stream.time_base is None:
        raise FileError(
            path,
            "holds a video stream in a format that is not supported; convert it to H.264 in MP4",
        )
    stamps, keys, missing, torn = _scan(container, stream)
    if missing:
        stamps = stamps[:0]  # a few missing stamps make the order of all of them doubtful
    order = np.argsort(stamps, kind="stable")
    zero = int(stamps[order[0]]) if len(order) else 0
    times = (
        (stamps[order] - zero) * stream.time_base.numerator / stream.time_base.denominator
    )  # [P]
    step = float(np.median(np.diff(times))) if len(times) > 1 else 0.0
    rate = float(stream.average_rate or stream.guessed_rate or 25)
    last = float(times[-1]) + step if len(times) else len(keys) / rate
    stated = _stated_seconds(container, stream)
    early = bool(len(times)) and stated > last + max(CUT_OFF_S, 2 * step)
    cut_off = _block_is_cut(path) or (early and not _sound_goes_on(container, stated))
    runs = np.diff(np.append(np.flatnonzero(keys), len(keys)))
    return Container(
        path=path,
        kind=kind,
        codec=stream.codec_context.name,
        stream=stream.index,
        clock=stream.time_base,
        zero=zero,
        times=times,
        longest_run=int(runs.max()) if len(runs) else len(keys),
        rate=rate,
        duration=stated or last,
        cut_off=cut_off,
        torn=torn,
    )


def _scan(
    container: "av.container.InputContainer", stream: "av.VideoStream"
) -> tuple[np.ndarray, np.ndarray, int, bool]:
    """For the packets in file order: time stamps [P] int64, keyframe flags [P] bool, the number
    without a time stamp, and whether any packet is torn.
    """
    stamps, keys, missing, torn = array("q"), bytearray(), 0, False
    prefix = _length_bytes(stream)
    try:
        for packet in container.demux(stream):
            # the end marker, or a picture that an edit list hides
            if packet.size == 0 or packet.is_discard:
                continue
            missing += packet.pts is None
            stamps.append(packet.pts or 0)
            keys.append(packet.is_keyframe)
            torn = torn or (prefix > 0 and _is_torn(memoryview(packet), prefix))
    except av.FFmpegError:
        # the file ends or is unreadable here: the packets so far count, and `cut_off` reports it
        pass
    return (
        np.array(stamps, dtype=np.int64),
        np.frombuffer(bytes(keys), dtype=np.bool_),
        missing,
        torn,
    )


def _length_bytes(stream: "av.VideoStream") -> int:
    """Bytes of the length field before each unit of an H.264 or HEVC packet; 0 for streams without
    such fields.
    """
    head = stream.codec_context.extradata or b""
    at = {"h264": 4, "hevc": 21}.get(stream.codec_context.name, len(head))
    return (head[at] & 3) + 1 if len(head) > at and head[0] == 1 else 0


def _is_torn(data: memoryview, prefix: int) -> bool:
    at = 0
    while at + prefix <= len(data):
        at += prefix + int.from_bytes(data[at : at + prefix], "big")
    return at != len(data)


def _stated_seconds(container: "av.container.InputContainer", stream: "av.VideoStream") -> float:
    """The length of the video stream that the file states; 0.0 if it states none."""
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    # Matroska: "00:00:10.333000000", counted from time zero
    tag = stream.metadata.get("DURATION", "").split(":")
    late = (
        (container.start_time or 0) / av.time_base if "matroska" in container.format.name else 0.0
    )
    try:
        hours, minutes, seconds = (float(part) for part in tag)
    except ValueError:
        return max(0.0, container.duration / av.time_base - late) if container.duration else 0.0
    return max(0.0, hours * 3600 + minutes * 60 + seconds - late)


def _block_is_cut(path: Path) -> bool:
    """True if a Matroska file is shorter than its one big element states.

    A demuxer returns the existing part of the last picture as if it were whole, and decoders show
    it.
    """
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


def _sound_goes_on(container: "av.container.InputContainer", stated: float) -> bool:
    """True if another stream lasts to the stated end. Then the pictures merely end sooner, and
    nothing was cut off.
    """
    others = [stream for stream in container.streams if stream.type == "audio"]
    if not others:
        return False
    try:
        container.seek(max(0, int((stated - CUT_OFF_S) * av.time_base)))
        return any(_ends(packet) >= stated - CUT_OFF_S for packet in container.demux(others))
    except av.FFmpegError:
        return False


def _ends(packet: "av.Packet[Any]") -> float:
    if packet.pts is None or packet.time_base is None:  # the end marker
        return -1.0
    return float((packet.pts + (packet.duration or 0)) * packet.time_base)
