"""Facts about a video file, read without decoding: fingerprint, timeline, and every picture's time.

Knows the container (through PyAV's demuxer) and no decoder's pictures. Video time begins with what
players show or play first. The scan reads the whole file once. It lets decoders agree on time, and
it detects files that were cut off (encoders/sources/packets/cut_files.py).
"""

import functools
import hashlib
import math
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import accumulate
from pathlib import Path
from typing import cast

import av
import av.container
import av.stream
import numpy as np
from av.codec.hwaccel import HWAccel

from encoders.errors import FileError, UserError
from encoders.sources.ffmpeg_name import ffmpeg_name
from encoders.sources.packets import coverage, cut_files
from encoders.sources.packets.scan import MISSING, PacketTable, demux, join, scan
from encoders.sources.packets.stamps import LEAP_S, PictureTimes, late_start, picture_times
from encoders.sources.packets.timeline import Timeline, TimelinePart
from encoders.sources.playlist import named_files
from encoders.sources.record_cache import RecordCache, version_of

WINDOW_BYTES, WINDOWS = 64 * 1024, 16
# a clock that falls back is what the file says; FFmpeg would make a leap of a day of it
_OPTIONS = {"correct_ts_overflow": "0"}
_WRAP = 1 << 33  # ticks of an MPEG-TS clock
# FFmpeg looks at the whole beginning, also for streams that are announced late
_DEEP = {"scan_all_pmts": "1", "probesize": "100000000", "analyzeduration": "36000000000"}
_TURNS = 64  # changes between streams that continue each other
_HIDDEN = 0.2  # share of the pictures that no film hides which is not trimmed
CUT_OFF_S = 1.0  # a file whose last packet is further than this from its stated end was cut off
_MIN_KEPT, _MIN_KEPT_BYTES = 15_000, 1 << 20  # pictures and bytes of a film whose facts are kept
_MOST_STEP_S = 2.0  # pictures that come more rarely are slides
MAX_PIXELS = 8192 * 8192  # of one picture; 8K has half of it, and a decoder takes 3 bytes for each
# formats that FFmpeg also opens as video: stills, and any text file
_PICTURES = ("image2", "_pipe", "tty")
# formats that name other files, or hosts, in ways that the fingerprint does not follow
_MANIFESTS = ("dash", "sdp", "rtsp")
_NO_FILM = (
    av.stream.Disposition.attached_pic
    | av.stream.Disposition.timed_thumbnails
    | av.stream.Disposition.still_image
)


@dataclass(frozen=True, slots=True)
class Container:
    """The facts of one file that decoders need."""

    path: Path
    kind: str  # FFmpeg's name of the format, such as "matroska,webm"
    codec: str
    options: Mapping[str, str]  # of FFmpeg, with which all streams of the file are found
    # index of the video stream, and of those that continue it
    streams: tuple[int, ...]
    firsts: tuple[int, ...]  # number of the first packet of each of them in `packets`
    clock: Fraction  # seconds per tick of a time stamp
    timeline: Timeline = field(repr=False)
    # [T] float64 seconds of video time of every picture, rising
    times: np.ndarray = field(repr=False)
    end: float  # seconds at which the last picture ends
    stated_end: float  # the same by the head of the file; 0.0 = it states nothing
    step: float  # the usual seconds from one picture to the next
    # False: the packets have no time stamps, and times count pictures at the stated rate
    is_stamped: bool
    packets: PacketTable = field(repr=False)
    pictures: PictureTimes | None = field(repr=False)  # None if not stamped
    rate: float  # mean pictures per second as stated
    pixels: int  # of one picture, as stated
    pixel_aspect: float  # width of a pixel divided by its height
    cut_off: bool  # the file ends before its stated length
    # seconds from which on pictures may be missing, since files hold them in another order
    whole_until: float
    # (last picture before, first picture after) of stretches that the demuxer could not read
    lost: tuple[tuple[int, int], ...] = ()

    @property
    def packet_pictures(self) -> np.ndarray:
        """[P] int64: the picture of each packet; -1 for none of its own."""
        if self.pictures is not None:
            return self.pictures.numbers
        return np.arange(len(self.packets))

    @property
    def duration(self) -> float:
        """Seconds of video time at which the last picture or sound ends."""
        return self.timeline.end

    @property
    def torn(self) -> bool:
        """True for packets whose inner lengths do not add up: decoders will fail there."""
        return self.packets.torn

    @property
    def longest_run(self) -> int:
        """Pictures between two keyframes, at most."""
        keys = self.packets.keys
        runs = np.diff(np.append(np.flatnonzero(keys), len(keys)))
        return int(runs.max()) if len(runs) else len(keys)


def fingerprint(path: Path) -> str:
    """16 hex digits over the size and up to 16 evenly spaced windows: equal for copies under any
    name. Of a playlist, also over the size and two windows of each file that it names.
    """
    digest = hashlib.sha256()
    _digest_windows(digest, path, WINDOWS)
    for segment in named_files(path):
        _digest_windows(digest, segment, 2)
    return digest.hexdigest()[:16]


def _digest_windows(digest: "hashlib._Hash", path: Path, windows: int) -> None:
    size = path.stat().st_size
    digest.update(str(size).encode())
    spread = range(windows) if size > windows * WINDOW_BYTES else range(1)
    length = WINDOW_BYTES if len(spread) > 1 else size
    with path.open("rb") as file:
        for number in spread:
            file.seek((size - length) * number // max(1, len(spread) - 1))
            digest.update(file.read(length))


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
    status = path.stat()
    return _inspect(path, (status.st_ino, status.st_size, status.st_mtime_ns))


def time_rules(path: Path) -> str:
    """What the settings of an extractor add for a file whose video time is not stream time counted
    from the first picture, as in earlier versions; "" for others.
    """
    facts = inspect(path)
    is_plain = not facts.timeline.restarts and float(facts.times[0]) == 0.0
    return "" if is_plain else ", one timeline"


@functools.cache
def _record_cache() -> RecordCache:
    """Facts of long films, by this code and this FFmpeg."""
    own = Path(__file__)
    code = version_of(own, *sorted((own.parent / "packets").glob("*.py")))
    types = (Container, PacketTable, PictureTimes, Timeline, TimelinePart)
    return RecordCache(types, f"{code} {av.__version__} {np.__version__} {sys.byteorder}")


# words and pictures of one film ask for the same facts, and a scan reads the whole file
@functools.lru_cache(maxsize=4)
def _inspect(path: Path, identity: tuple[int, ...]) -> Container:
    if path.stat().st_size < _MIN_KEPT_BYTES:
        return _scanned(path)
    from_disk = _record_cache().read(path)
    if isinstance(from_disk, Container):
        from_disk.times.setflags(write=False)
        return from_disk
    facts = _scanned(path)
    if len(facts.packets) >= _MIN_KEPT and next(named_files(path), None) is None:
        _record_cache().write(path, facts)
    return facts


def _scanned(path: Path) -> Container:
    try:
        facts = _facts(path, _OPTIONS)
        size = path.stat().st_size
        may_have_holes = coverage.may_have_holes(facts.packets, size, facts.kind)
        if facts.kind == "mpegts" and may_have_holes:
            deep = _facts(path, _OPTIONS | _DEEP)
            facts = deep if len(deep.times) > len(facts.times) else facts
        is_trimmed = facts.kind.startswith("mov") and cut_files.is_trimmed(path)
        if may_have_holes and not is_trimmed:
            with _open(path, facts.options) as container:
                facts = _with_losses(facts, coverage.holes(container, size))
        return facts
    except PermissionError as error:
        raise FileError(path, "may not be read; change its permissions") from error
    except av.FFmpegError as error:
        raise FileError(
            path,
            f"is not a video that can be read ({error.strerror}); if it should be one, the file is "
            "damaged or "
            "incomplete, so copy or download it again",
        ) from error


def _with_losses(facts: Container, stretches: Sequence[coverage.Stretch]) -> Container:
    """The facts with what the demuxer lost: where time shows that there were pictures."""
    numbers = facts.packet_pictures
    places = facts.packets.bytes
    usual = max(CUT_OFF_S, 2 * facts.step)
    is_early = facts.stated_end > facts.times[-1] + usual
    # behind lost places of an FLV, garbage reads as packets of other streams; sound is none
    garbage = is_early and facts.kind == "flv" and facts.timeline.end <= facts.end
    lost, cut_off = [], facts.cut_off or garbage
    for first, end in stretches:
        before, after = numbers[places < first], numbers[places >= end]
        if not len(before):
            continue
        last = int(before.max())
        if len(after):
            next_one = int(after.min())
            if next_one > last and facts.times[next_one] - facts.times[last] > usual:
                lost.append((last, next_one))
        elif not cut_files.has_index_at(facts.path, int((places + facts.packets.sizes).max())):
            cut_off = True
    last_end = float(facts.times[-1]) + facts.step if cut_off else facts.end
    whole_until = min(facts.whole_until, float(facts.times[-1]) if cut_off else math.inf)
    return replace(
        facts, lost=tuple(lost), cut_off=bool(cut_off), end=last_end, whole_until=whole_until
    )


def _successors(path: Path, options: Mapping[str, str], index: int) -> tuple[int, ...]:
    """Indexes of streams of the same codec that hold pictures where this one holds none, as after a
    change of identifiers in an MPEG-TS.
    """
    with _open(path, options) as container:
        film = container.streams[index]
        others = [
            other
            for other in container.streams.video
            if other.index != index
            and other.codec_context is not None
            and other.codec_context.name == film.codec_context.name
            and other.time_base == film.time_base
        ]
        turns: list[int] = []  # the streams in file order, without repeats
        with suppress(av.FFmpegError):
            for packet in demux(container, film, *others):
                if not turns or turns[-1] != packet.stream_index:
                    turns.append(packet.stream_index)
                if len(turns) > _TURNS:
                    return ()  # side by side: another program
        return tuple(other.index for other in others if other.index in turns)


def _open(
    path: Path, options: Mapping[str, str], hwaccel: HWAccel | None = None
) -> "av.container.InputContainer":
    return av.open(
        ffmpeg_name(path), options=dict(options), metadata_errors="replace", hwaccel=hwaccel
    )


def open_film(facts: Container, hwaccel: HWAccel | None = None) -> "av.container.InputContainer":
    """The file, opened so that its stream times are those of `facts.timeline`. Close it after use.

    hwaccel: the device that decodes; software does where that cannot open it. UserError if the file
    cannot be opened any more.
    """
    try:
        if hwaccel is not None:
            with suppress(av.FFmpegError):  # such as too many sessions of the device
                return _open(facts.path, facts.options, hwaccel)
        return _open(facts.path, facts.options)
    except (OSError, av.FFmpegError) as error:
        raise FileError(
            facts.path, "cannot be opened any more; was it moved or changed?"
        ) from error


def video_stream(container: "av.container.InputContainer") -> "av.VideoStream | None":
    """The film of a file: its largest video stream that is no cover, no preview and no still.

    None if there is no such stream.
    """
    streams = [
        stream
        for stream in container.streams.video
        if not stream.disposition & _NO_FILM
        and stream.codec_context is not None
        and stream.time_base is not None
    ]
    best = container.streams.best("video")

    def rank(stream: "av.VideoStream") -> tuple[int, bool, int]:
        coder = stream.codec_context
        return coder.width * coder.height, stream is best, -stream.index

    return max(streams, key=rank, default=None)


def _facts(path: Path, options: Mapping[str, str]) -> Container:
    with _open(path, options) as container:
        stream = _film(path, container)
        indexes: tuple[int, ...] = (stream.index,)
        if options is not _OPTIONS:
            indexes += _successors(path, options, stream.index)
        tables = [scan(container, stream)]
        for index in indexes[1:]:
            with _open(path, options) as again:
                tables.append(scan(again, cast(av.VideoStream, again.streams[index])))
        return _timed(path, container, stream, options, indexes, tables)


def _is_animated_webp(path: Path) -> bool:
    """True for a WebP whose extended header says that it is animated; FFmpeg reads none."""
    with path.open("rb") as file:
        head = file.read(21)
    return head[8:16] == b"WEBPVP8X" and len(head) == 21 and bool(head[20] & 2)


def _film(path: Path, container: "av.container.InputContainer") -> "av.VideoStream":
    """The stream to read. UserError for what is no film, or too large."""
    if any(word in container.format.name for word in _PICTURES):
        if _is_animated_webp(path):
            raise FileError(path, "is an animated WebP, which is not supported; convert it to MP4")
        raise FileError(
            path, "is a still picture or a text, not a video; give the path of one video file"
        )
    if container.format.name in _MANIFESTS:
        raise FileError(
            path, "names other files and holds no pictures itself; join them into one video file"
        )
    stream = video_stream(container)
    if stream is None:
        raise _no_film(path, container)
    size = stream.codec_context.width, stream.codec_context.height
    if size[0] * size[1] > MAX_PIXELS:
        raise FileError(
            path,
            f"has pictures of {size[0]} x {size[1]} pixels; at most {MAX_PIXELS} can be decoded, "
            "so convert it to smaller ones",
        )
    return stream


def _timed(
    path: Path, container: "av.container.InputContainer", stream: "av.VideoStream",
    options: Mapping[str, str], indexes: tuple[int, ...], tables: list[PacketTable],
) -> Container:  # fmt: skip
    kind, table = container.format.name, join(tables)
    firsts = tuple(accumulate((len(each) for each in tables[:-1]), initial=0))
    if not len(table):
        raise FileError(path, "holds no picture; copy or download it again")
    assert stream.time_base is not None
    clock, rate = stream.time_base, float(stream.average_rate or stream.guessed_rate or 25)
    pictures = None
    if table.has_stamps:
        pictures = picture_times(
            table,
            firsts,
            clock,
            lambda first, step: _origin(path, container, clock, first, step),
            _WRAP if kind == "mpegts" else 0,
        )
        if 2 * len(pictures.times) < np.count_nonzero(~table.hidden):
            pictures = None  # the stamps are damaged: most pictures share one
    if pictures is not None:
        times, parts = pictures.times, pictures.parts
        step = pictures.step or 1.0 / rate
    else:
        times, step = np.arange(len(table)) / rate, 1.0 / rate
        parts = (TimelinePart(0, 1 << 62, 0.0, 0.0, len(table) / rate),)
    times.setflags(write=False)
    stated = _stated_end(container, stream, parts[0], float(times[0]))
    last = float(times[-1]) + _last_seconds(table, clock, step)
    sound = _sound_end(container, parts)
    early = stated > last + max(CUT_OFF_S, 2 * step) and sound < stated - CUT_OFF_S
    cut_off = cut_files.is_cut(path, kind, stream, table) or (
        # an MP4 whose index is damaged lists fewer pictures than it states
        early and (not cut_files.tells_itself(kind) or stream.frames > len(table))
    )
    if not cut_off and "matroska" in kind and last < stated < last + LEAP_S:
        last = stated  # Matroska states no length of the last picture but that of the stream
    wrap = float(_WRAP * clock) if kind == "mpegts" else 0.0
    return Container(
        path=path,
        kind=kind,
        codec=stream.codec_context.name,
        options=options,
        streams=indexes,
        firsts=firsts,
        clock=clock,
        timeline=Timeline(
            parts, max(last, sound), _notes(path, kind, table, pictures, indexes), wrap
        ),
        times=times,
        end=last,
        stated_end=stated,
        step=step,
        is_stamped=pictures is not None,
        packets=table,
        pictures=pictures,
        rate=rate,
        pixels=stream.codec_context.width * stream.codec_context.height,
        pixel_aspect=float(stream.sample_aspect_ratio or 1),
        cut_off=bool(cut_off),
        whole_until=_last_order(table, clock, parts[-1]) if cut_off else math.inf,
    )


def _last_order(table: PacketTable, clock: Fraction, part: TimelinePart) -> float:
    """Video time of the last decoding time."""
    stated = table.order[table.order != MISSING]
    return float(stated[-1] * clock) - part.stream_start + part.start if len(stated) else 0.0


def _notes(
    path: Path, kind: str, table: PacketTable, pictures: PictureTimes | None,
    indexes: tuple[int, ...],
) -> tuple[str, ...]:  # fmt: skip
    """What the user must know of the film's time."""
    notes = list(pictures.notes) if pictures is not None else []
    if len(indexes) > 1:
        notes.append(f"{len(indexes)} video streams that follow each other were read as one film")
    hidden = int(table.hidden.sum())
    # with damaged times, an edit list hides what lies behind its end
    if hidden > _HIDDEN * len(table) and kind.startswith("mov") and not cut_files.is_trimmed(path):
        notes.append(f"{hidden} of {len(table)} pictures lie outside the film by its head")
    return tuple(notes)


def _no_film(path: Path, container: "av.container.InputContainer") -> FileError:
    if any(
        stream.disposition & ~_NO_FILM == stream.disposition for stream in container.streams.video
    ):
        return FileError(
            path,
            "holds a video stream in a format that is not supported; convert it to H.264 in MP4",
        )
    what = "only sound" if container.streams.audio else "no pictures"
    return FileError(path, f"holds {what} and no video stream; give a file with pictures")


def _origin(
    path: Path, container: "av.container.InputContainer", clock: Fraction, first: int, step: float
) -> int:
    """Stamp of video time 0: what players show or play first, an empty edit included."""
    begin = float(first * clock)
    starts = [
        float(sound.start_time * sound.time_base)
        for sound in container.streams.audio
        if sound.start_time is not None and sound.time_base is not None
    ]
    if container.format.name.startswith("mov") and begin > 0 and cut_files.begins_empty(path):
        starts.append(0.0)
    zero = min(starts, default=begin)
    if not late_start(step) < begin - zero < LEAP_S:
        return first
    return round(zero / clock)


def _last_seconds(table: PacketTable, clock: Fraction, step: float) -> float:
    """How long the last picture stands. The usual step counts where the file says less, as some
    recorders do; but not that of slides, which stand for minutes.
    """
    seconds = float(table.last_ticks * clock)
    seconds = seconds if 0 < seconds < LEAP_S else 0.0
    return seconds if seconds and step > _MOST_STEP_S else max(step, seconds)


def _stated_end(
    container: "av.container.InputContainer", stream: "av.VideoStream", part: TimelinePart,
    first: float,
) -> float:  # fmt: skip
    """Video time at which the stream ends by the file's head; 0.0 if it states nothing."""
    if stream.duration is not None and stream.time_base is not None:
        return first + float(stream.duration * stream.time_base)
    # Matroska: "00:00:10.333000000", counted from time zero of the stream
    tag = stream.metadata.get("DURATION", "").split(":")
    stated = container.duration / av.time_base if container.duration else 0.0
    if len(tag) == 3:
        try:
            hours, minutes, seconds = (float(each) for each in tag)
        except ValueError:
            pass
        else:
            end = hours * 3600 + minutes * 60 + seconds - part.stream_start
            return min(end, stated) if stated else end
    if not stated:
        return 0.0
    if "matroska" in container.format.name:
        return max(0.0, stated + min(0.0, -part.stream_start))
    begin = container.start_time / av.time_base if container.start_time is not None else 0.0
    return max(0.0, stated + begin - part.stream_start)


def _sound_end(container: "av.container.InputContainer", parts: tuple[TimelinePart, ...]) -> float:
    """Video time at which the sound ends, where the head says that it outlasts the pictures and
    packets show it; 0.0 otherwise.
    """
    sounds = list(container.streams.audio)
    part = parts[-1]
    stated = (container.duration or 0) + max(container.start_time or 0, 0)
    over = stated / av.time_base - part.stream_start - part.seconds
    if not sounds or len(parts) > 1 or not CUT_OFF_S < over < LEAP_S:
        return 0.0
    end = 0.0
    # some containers find no sound behind the last picture
    for target in (stated / av.time_base - CUT_OFF_S, part.stream_start + part.seconds - CUT_OFF_S):
        with suppress(av.FFmpegError):  # the packets so far count
            container.seek(max(0, int(target * av.time_base)))
            for packet in demux(container, *sounds):
                if packet.pts is not None and packet.time_base is not None:
                    end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
        if end:
            break
    return max(0.0, end - part.stream_start)
