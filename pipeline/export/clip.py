"""A stretch of a film as a file of its own: packets are copied, nothing is encoded again.

A copy begins where a decoder can begin: at the last keyframe before the stretch. `Clip.start` tells
the second. Sound and subtitles come along, and rotation, colours and languages stay. Knows films;
no bank, no search.
"""

import heapq
import io
import math
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.container
import numpy as np

from encoders.errors import FileError, UserError
from encoders.sources.container import Container, inspect, open_film
from encoders.sources.decoders import PacketFeed, units_of
from encoders.sources.identity import why_not_file
from encoders.sources.packets.scan import MISSING, demux
from encoders.text.subtitles import is_text_track, packet_text
from memory.storage.atomic import replacing

# suffix -> FFmpeg's name of the format, and the codec of its subtitles that are text
FORMATS = {
    ".mp4": ("mp4", "mov_text"),
    ".m4v": ("mp4", "mov_text"),
    ".mov": ("mov", "mov_text"),
    ".mkv": ("matroska", "subrip"),
}
_EPS_S = 1e-3  # Matroska rounds times to milliseconds
_EARLIER_S = 10.0  # a subtitle that began so much earlier may still be shown
_INTERLEAVED_S = 5.0  # sound and subtitles lie at most so far behind the pictures of their time
# of a film or a track; others, such as major_brand, belong to the format
_TAGS = ("title", "comment", "creation_time", "date", "artist", "language", "handler_name")


@dataclass(frozen=True, slots=True)
class Clip:
    """A file that was cut from a film."""

    path: Path
    start: float  # seconds of the film's video time: its first picture
    end: float  # seconds: where its last picture ends
    nbytes: int
    notes: tuple[str, ...] = ()  # what the user must know, such as tracks that were left out


@dataclass(frozen=True, slots=True)
class _Cut:
    """The packets of the pictures, and the clock of everything else."""

    stream: int  # number in `facts.streams`
    first: int  # packets first..stop-1 in file order
    stop: int
    picture: int  # number of the first picture
    zero_ticks: int  # time stamp of that picture
    start: float  # seconds of video time
    end: float  # seconds up to which sound and subtitles are copied
    last_start: float  # of the last picture of the stretch
    last_end: float


@dataclass(frozen=True, slots=True)
class _Track:
    """A track of the film and its copy."""

    source: Any  # av stream
    copy: Any  # av stream
    text_codec: str = ""  # packets are written anew as plain text of this codec


def cut_clip(film: Path, start: float, end: float, path: Path, *, video_id: str = "") -> Clip:
    """Write the stretch from `start` to `end` (seconds of video time) of a film to `path`.

    The suffix of `path` says the format. A file that is there is replaced once the new one is
    whole. video_id: of the bank; the film has to be that video still.
    UserError when the film is gone or another one, when the stretch lies outside of it, when the
    format cannot hold the film, or when the path is the film itself.
    """
    if video_id:
        obstacle = why_not_file(video_id, film)
        if obstacle:
            raise UserError(f"No clip can be cut, as {obstacle}; put the film back there")
    facts = inspect(film)
    _check(facts, start, end, path)
    cut = _cut(facts, start, min(end, facts.duration))
    notes: list[str] = []
    try:
        with replacing(path) as temporary:
            _write(facts, cut, temporary, path.suffix.lower(), notes)
            nbytes = temporary.stat().st_size
    except av.FFmpegError as error:
        raise UserError(
            f"{path} cannot be written from {film} ({error.strerror}); try another suffix, such as "
            f"{'.mov' if path.suffix.lower() == '.mkv' else '.mkv'}"
        ) from error
    return Clip(path, cut.start, cut.last_end, nbytes, tuple(notes))


def _check(facts: Container, start: float, end: float, path: Path) -> None:
    """UserError before anything is written."""
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
    if path.suffix.lower() not in FORMATS:
        raise UserError(
            f"{path} has no suffix of a film that clips are written as; use one of "
            f"{', '.join(FORMATS)}"
        )
    if not path.absolute().parent.is_dir():
        raise UserError(f"{path} is in a folder that is not there; make it, or choose another path")
    if path.is_dir():
        raise UserError(f"{path} is a folder; give the path of a file in it")
    if path.exists() and path.samefile(facts.path):
        raise UserError(f"{path} is the film itself; give the clip another name")
    if facts.pictures is None:
        raise FileError(
            facts.path, "has no time stamps to cut at; convert it to .mkv or .mp4 first"
        )


def _cut(facts: Container, start: float, end: float) -> _Cut:
    """Where a decoder can begin, at `start` or before, and what it needs up to `end`."""
    units, numbers, times = units_of(facts), facts.packet_pictures, facts.times
    shown_at = max(int(np.searchsorted(times, start + _EPS_S, side="right")) - 1, 0)
    unit = max(int(np.searchsorted(units.edges[:-1], shown_at, side="right")) - 1, 0)
    first, picture = int(units.entries[unit]), int(units.edges[unit])
    edges = (*facts.firsts, len(facts.packets))
    stream = int(np.searchsorted(edges, first, side="right")) - 1
    part = next(p for p in reversed(facts.timeline.parts) if p.start <= times[picture] + _EPS_S)
    if facts.timeline.restarts:
        end = min(end, part.start + part.seconds)
    within = np.arange(first, edges[stream + 1])
    own = numbers[within]
    wanted = (own >= picture) & (times[np.maximum(own, 0)] < max(end - _EPS_S, start + _EPS_S))
    last = int(own[wanted].max())
    stop = int(within[wanted].max()) + 1
    zero = int(np.flatnonzero(numbers == picture)[0])
    return _Cut(
        stream,
        first,
        stop,
        picture,
        int(facts.packets.stamps[zero]),
        float(times[picture]),
        end,
        float(times[last]),
        float(times[last + 1]) if last + 1 < len(times) else facts.end,
    )


def _write(facts: Container, cut: _Cut, path: Path, suffix: str, notes: list[str]) -> None:
    """notes: of what was left out, are added here."""
    kind, text_codec = FORMATS[suffix]
    with ExitStack() as stack:
        feed = PacketFeed(facts, cut.stream)
        stack.callback(feed.close)
        film = stack.enter_context(open_film(facts))
        copy = stack.enter_context(av.open(str(path), "w", format=kind))
        copy.metadata.update(_tags(film.metadata))
        source = film.streams[facts.streams[cut.stream]]
        codec = source.codec_context.name
        video = _copied(copy, source)
        if video is None:
            raise UserError(
                f"{suffix} cannot hold pictures in {codec}, which {facts.path} has; "
                f"{_remedy(source)}"
            )
        tracks = [track for each in _others(film) if (track := _track(copy, each, text_codec))]
        held = {track.source.index for track in tracks}
        notes += [
            f"a {each.type} track ({each.codec_context.name if each.codec_context else 'unknown'}) "
            f"was left out, which {suffix} cannot hold; .mkv can hold more"
            for each in _others(film)
            if each.index not in held
        ]
        packets = heapq.merge(
            _pictures(facts, cut, feed, video),
            _along(facts, cut, film, tracks),
            key=lambda pair: pair[0],
        )
        for _, packet in packets:
            copy.mux_one(packet)


def _remedy(source: Any) -> str:
    """What to do where a format cannot hold the pictures."""
    for suffix in (".mkv", ".mp4", ".mov"):
        kind, _ = FORMATS[suffix]
        with av.open(io.BytesIO(), "w", format=kind) as trial:
            if _copied(trial, source) is not None:
                return f"use {suffix}"
    return "convert the film to H.264 first"


def _others(film: "av.container.InputContainer") -> list[Any]:
    return [*film.streams.audio, *film.streams.subtitles]


def _tags(metadata: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in metadata.items() if key.lower() in _TAGS}


def _copied(copy: "av.container.OutputContainer", source: Any) -> Any:
    """A track for packets as they are; None where the format cannot hold them."""
    if source.codec_context is None:
        return None
    try:
        stream = copy.add_stream_from_template(source, opaque=True)
    except ValueError:
        return None
    stream.metadata.update(_tags(source.metadata))
    stream.disposition = source.disposition
    return stream


def _track(copy: "av.container.OutputContainer", source: Any, text_codec: str) -> _Track | None:
    stream = _copied(copy, source)
    if stream is not None:
        return _Track(source, stream)
    if source.type != "subtitle" or not is_text_track(source):
        return None
    stream = copy.add_mux_stream(text_codec)
    stream.time_base = Fraction(1, 1000)
    stream.metadata.update(_tags(source.metadata))
    return _Track(source, stream, text_codec)


def _pictures(
    facts: Container, cut: _Cut, feed: PacketFeed, stream: Any
) -> Iterator[tuple[float, Any]]:
    """The packets of the pictures with their decoding times in seconds."""
    clock = float(facts.clock)
    copied, ticks, decoded_at = _stamps(facts, cut)
    place, last = 0, int(copied[np.argmax(ticks)])
    for number, packet in feed.packets(cut.first, cut.stop):
        if place < len(copied) and number == copied[place]:
            packet.pts, packet.dts = int(ticks[place]), int(decoded_at[place])
            packet.stream = stream
            if not packet.duration and number == last:
                # without it, a player would show the last picture for no time
                packet.duration = round((cut.last_end - cut.last_start) / clock)
            place += 1
            yield packet.dts * clock, packet


def _stamps(facts: Container, cut: _Cut) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """[n] int64 each: numbers of the packets that are copied, when each one is shown, and when it
    is decoded, in ticks of the clip.
    """
    table, within = facts.packets, np.arange(cut.first, cut.stop)
    own = facts.packet_pictures[within]
    # a picture of before the first one needs what is not copied
    numbers = within[~table.missing[within] & ((own < 0) | (own >= cut.picture))]
    wrap = round(facts.timeline.wrap / facts.clock) if facts.timeline.wrap else 0
    shift = cut.zero_ticks

    def moved(stamps: np.ndarray) -> np.ndarray:
        ticks = stamps[numbers] - shift
        return np.where(ticks < -(wrap // 2), ticks + wrap, ticks) if wrap else ticks

    ticks, decoded_at = moved(table.stamps), table.order[numbers]
    if not (decoded_at == MISSING).any():
        decoded_at = moved(table.order)
        if (np.diff(decoded_at) > 0).all() and (decoded_at <= ticks).all():
            return numbers, ticks, decoded_at
    # the file has none, or guesses: Matroska stores no decoding times
    rising = np.sort(ticks)
    late = int((rising - ticks).max())
    return numbers, ticks, rising - late


def _along(
    facts: Container, cut: _Cut, film: "av.container.InputContainer", tracks: list[_Track]
) -> Iterator[tuple[float, Any]]:
    """The packets of sound and subtitles with their times in seconds."""
    if not tracks:
        return
    by_index = {track.source.index: track for track in tracks}
    early = max(cut.start - _EARLIER_S, 0.0)
    stream_time, _ = facts.timeline.stream_time(early)
    if early > 0 and stream_time > 0 and not facts.timeline.restarts:
        film.seek(int(stream_time * av.time_base))
    at = -math.inf
    for packet in demux(film, *(track.source for track in tracks)):
        if packet.pts is None or packet.time_base is None:
            continue
        clock = float(packet.time_base)
        seconds = facts.timeline.seconds(packet.pts * clock, packet.pos)
        if seconds > cut.end + _INTERLEAVED_S and not facts.timeline.restarts:
            return
        track = by_index[packet.stream_index]
        copied = _moved(packet, track, seconds - cut.start, cut.end - cut.start)
        if copied is not None:
            at = max(at, float(copied.pts * copied.time_base))
            yield at, copied


def _moved(packet: Any, track: _Track, seconds: float, length: float) -> Any:
    """The packet on the clock of the clip; None where it is no part of it.

    seconds: of the packet, in the clip. length: of the clip.
    """
    clock, lasts = packet.time_base, float((packet.duration or 0) * packet.time_base)
    if seconds >= length:
        return None
    if track.source.type != "subtitle":
        if seconds < -_EPS_S:
            return None
        delay = 0 if packet.dts is None else packet.pts - packet.dts
        packet.pts = max(round(seconds / clock), 0)
        packet.dts, packet.stream = packet.pts - delay, track.copy
        return packet
    if seconds + lasts <= 0:
        return None
    begin, stop = max(seconds, 0.0), min(seconds + lasts, length)
    if track.text_codec:
        text = packet_text(packet).encode()
        length_first = len(text).to_bytes(2, "big") if track.text_codec == "mov_text" else b""
        packet, clock = av.Packet(length_first + text), Fraction(1, 1000)
        packet.time_base = clock
    packet.pts = packet.dts = round(begin / clock)
    packet.duration = round((stop - begin) / clock)
    packet.stream = track.copy
    return packet
