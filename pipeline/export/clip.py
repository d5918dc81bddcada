"""A stretch of a film as a file of its own.

Packets are copied, and nothing is encoded again: a copy begins where a decoder can begin, at the
last keyframe before the stretch, and `Clip.start` tells the second. An exact clip begins and ends
where it is asked to; only pictures next to its ends are encoded again. Sound and subtitles come
along, and rotation, colours and languages stay. Knows films; no bank, no search.
"""

import heapq
import io
import math
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import av.container

from encoders.errors import FileError, UserError
from encoders.sources.container import Container, inspect, open_film
from encoders.sources.decoding.packet_feed import PacketFeed
from encoders.sources.identity import why_not_file
from memory.storage.atomic import replacing
from pipeline.export.cutting.bitstream import Bitstream
from pipeline.export.cutting.copied_pictures import CopiedPictures
from pipeline.export.cutting.exact_pictures import EncodedPictures, ExactPictures
from pipeline.export.cutting.picture_encoder import can_encode, codec_of
from pipeline.export.cutting.seams import why_not_exact
from pipeline.export.cutting.side_tracks import copied_track, side_packets, side_tracks, tags

# suffix -> FFmpeg's name of the format, and the codec of its subtitles that are text
FORMATS = {
    ".mp4": ("mp4", "mov_text"),
    ".m4v": ("mp4", "mov_text"),
    ".mov": ("mov", "mov_text"),
    ".mkv": ("matroska", "subrip"),
}
Pictures = Iterator[tuple[float, Any]]  # seconds at which a packet is decoded, and the packet


@dataclass(frozen=True, slots=True)
class Clip:
    """A file that was cut from a film."""

    path: Path
    start: float  # seconds of the film's video time: its first picture
    end: float  # seconds: where its last picture ends
    nbytes: int
    notes: tuple[str, ...] = ()  # what the user must know, such as tracks that were left out
    encoded: int = 0  # pictures that were encoded again


def cut_clip(
    film: Path, start: float, end: float, path: Path, *, video_id: str = "", exact: bool = False
) -> Clip:
    """Write the stretch from `start` to `end` (seconds of video time) of a film to `path`.

    The suffix of `path` says the format. A file that is there is replaced once the new one is
    whole. video_id: of the bank; the film has to be that video still. exact: the clip begins and
    ends there, and not at keyframes.
    UserError when the film is gone or another one, when the stretch lies outside of it, when the
    format cannot hold the film, or when the path is the film itself.
    """
    facts = check_stretch(film, start, end, video_id)
    check_clip_path(path, facts.path)
    end = min(end, facts.duration)
    try:
        if exact:
            return _exact(facts, start, end, path)
        copied = CopiedPictures.of(facts, start, end)
        notes: list[str] = []
        with replacing(path) as temporary:
            _write(facts, copied, temporary, path.suffix.lower(), notes)
            nbytes = temporary.stat().st_size
        return Clip(path, copied.start, copied.last_end, nbytes, tuple(notes))
    except av.FFmpegError as error:
        raise UserError(
            f"{path} cannot be written from {film} ({error.strerror}); try another suffix, such as "
            f"{'.mov' if path.suffix.lower() == '.mkv' else '.mkv'}"
        ) from error


def check_stretch(film: Path, start: float, end: float, video_id: str = "") -> Container:
    """The facts of a film that has a stretch of video time, in seconds. UserError where it has
    not, and where the file is no more the video of that id."""
    if video_id:
        obstacle = why_not_file(video_id, film)
        if obstacle:
            raise UserError(f"No clip can be cut, as {obstacle}; put the film back there")
    facts = inspect(film)
    if not 0 <= start < end or math.isinf(start):
        raise UserError(
            f"The stretch from {start:g} s to {end:g} s is none; give two seconds, the first one "
            "below the second"
        )
    if start >= facts.duration:
        raise UserError(
            f"{start:g} s is outside of {facts.path}, which ends at {facts.duration:.1f} s; give "
            "an earlier stretch"
        )
    if facts.pictures is None:
        raise FileError(
            facts.path, "has no time stamps to cut at; convert it to .mkv or .mp4 first"
        )
    return facts


def check_clip_path(path: Path, film: Path, formats: tuple[str, ...] = tuple(FORMATS)) -> None:
    """UserError where no clip of a film can be written to a path."""
    if path.suffix.lower() not in formats:
        raise UserError(
            f"{path} has no suffix of a film that clips are written as; use one of "
            f"{', '.join(formats)}"
        )
    if not path.absolute().parent.is_dir():
        raise UserError(f"{path} is in a folder that is not there; make it, or choose another path")
    if path.is_dir():
        raise UserError(f"{path} is a folder; give the path of a file in it")
    if path.exists() and path.samefile(film):
        raise UserError(f"{path} is the film itself; give the clip another name")


def _exact(facts: Container, start: float, end: float, path: Path) -> Clip:
    """An exact clip whose seams were decoded; where they do not show the film, all pictures are
    encoded again."""
    suffix, reason = path.suffix.lower(), ""
    with ExitStack() as stack:
        film = stack.enter_context(open_film(facts))
        coder = film.streams[facts.streams[0]].codec_context
        assert isinstance(coder, av.VideoCodecContext)
        is_possible = can_encode(codec_of(coder), coder.pix_fmt or "")
        form = Bitstream.of(codec_of(coder), coder.extradata) if is_possible else None
        feed = PacketFeed(facts, 0)
        stack.callback(feed.close)
        cut = ExactPictures.of(facts, start, end, feed, form)
    notes: list[str] = []
    with replacing(path) as temporary:
        if cut.copies:
            _write(facts, cut, temporary, suffix, notes, form)
            reason = why_not_exact(facts, cut, temporary)
        if reason or not cut.copies:
            temporary.unlink(missing_ok=True)
            _write_encoded(facts, cut, temporary, suffix, notes := [], reason)
        nbytes = temporary.stat().st_size
    encoded = cut.stop - cut.first if reason else cut.encoded
    return Clip(path, cut.start, cut.end, nbytes, tuple(notes), encoded)


def _write(
    facts: Container,
    cut: CopiedPictures | ExactPictures,
    path: Path,
    suffix: str,
    notes: list[str],
    form: Bitstream | None = None,
) -> None:
    """notes: of what was left out, are added here. form: of an exact clip's packets."""
    with ExitStack() as stack:
        feed = PacketFeed(facts, cut.stream)
        stack.callback(feed.close)
        film = stack.enter_context(open_film(facts))
        copy = stack.enter_context(_opened(path, suffix, film))
        source = film.streams[facts.streams[cut.stream]]
        video = copied_track(copy, source)
        if video is None:
            raise UserError(
                f"{suffix} cannot hold pictures in {source.codec_context.name}, which {facts.path} "
                f"has; {_remedy(source)}"
            )
        if isinstance(cut, ExactPictures):
            pictures = cut.packets(facts, feed, video, source.codec_context, form)
        else:
            pictures = cut.packets(facts, feed, video)
        _mux(facts, cut, film, copy, suffix, notes, pictures)


def _write_encoded(
    facts: Container, cut: ExactPictures, path: Path, suffix: str, notes: list[str], reason: str
) -> None:
    """reason: why nothing of it is copied; empty: nothing could be."""
    with ExitStack() as stack:
        film = stack.enter_context(open_film(facts))
        copy = stack.enter_context(_opened(path, suffix, film))
        coder = film.streams[facts.streams[cut.stream]].codec_context
        pictures = EncodedPictures(copy, facts, cut, coder)
        if reason or not pictures.is_as_before:
            why = f", as a copy would be wrong: {reason}" if reason else ""
            notes.append(f"all pictures were encoded again as {pictures.name}{why}")
        _mux(facts, cut, film, copy, suffix, notes, pictures.packets())


def _opened(
    path: Path, suffix: str, film: "av.container.InputContainer"
) -> "av.container.OutputContainer":
    copy = av.open(str(path), "w", format=FORMATS[suffix][0])
    copy.metadata.update(tags(film.metadata))
    return copy


def _mux(
    facts: Container,
    cut: CopiedPictures | ExactPictures,
    film: "av.container.InputContainer",
    copy: "av.container.OutputContainer",
    suffix: str,
    notes: list[str],
    pictures: Pictures,
) -> None:
    """Write pictures, sound and subtitles in the order of their times."""
    tracks, others = side_tracks(copy, film, FORMATS[suffix][1])
    notes += [
        f"a {each.type} track ({each.codec_context.name if each.codec_context else 'unknown'}) "
        f"was left out, which {suffix} cannot hold; .mkv can hold more"
        for each in others
    ]
    along = side_packets(facts, cut.start, cut.end, film, tracks)
    for _, packet in heapq.merge(pictures, along, key=lambda pair: pair[0]):
        copy.mux_one(packet)


def _remedy(source: Any) -> str:
    """What to do where a format cannot hold the pictures."""
    for suffix in (".mkv", ".mp4", ".mov"):
        kind, _ = FORMATS[suffix]
        with av.open(io.BytesIO(), "w", format=kind) as trial:
            if copied_track(trial, source) is not None:
                return f"use {suffix}"
    return "convert the film to H.264 first"
