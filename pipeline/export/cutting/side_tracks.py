"""Sound and subtitles of a clip: packets are copied, and times are those of the clip.

Knows the facts of a film, and no pictures.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import av.container

from encoders.sources.container import Container
from encoders.sources.packets.scan import demux
from encoders.text.subtitles import is_text_track, packet_text

_EPS_S = 1e-3
_EARLIER_S = 10.0  # a subtitle that began so much earlier may still be shown
_INTERLEAVED_S = 5.0  # sound and subtitles lie at most so far behind the pictures of their time
# of a film or a track; others, such as major_brand, belong to the format
_TAGS = ("title", "comment", "creation_time", "date", "artist", "language", "handler_name")


@dataclass(frozen=True, slots=True)
class SideTrack:
    """A track of the film and its copy."""

    source: Any  # av stream
    copy: Any  # av stream
    text_codec: str = ""  # packets are written anew as plain text of this codec


def tags(metadata: dict[str, str]) -> dict[str, str]:
    """The tags that a copy keeps."""
    return {key: value for key, value in metadata.items() if key.lower() in _TAGS}


def copied_track(copy: "av.container.OutputContainer", source: Any) -> Any:
    """A track for packets as they are; None where the format cannot hold them."""
    if source.codec_context is None:
        return None
    try:
        stream = copy.add_stream_from_template(source, opaque=True)
    except ValueError:
        return None
    stream.metadata.update(tags(source.metadata))
    stream.disposition = source.disposition
    return stream


def side_tracks(
    copy: "av.container.OutputContainer", film: "av.container.InputContainer", text_codec: str
) -> tuple[list[SideTrack], list[Any]]:
    """The tracks that the format holds, and those of the film that it cannot. text_codec: of its
    subtitles that are text."""
    others = [*film.streams.audio, *film.streams.subtitles]
    tracks = [track for each in others if (track := _track(copy, each, text_codec))]
    copied = {track.source.index for track in tracks}
    return tracks, [each for each in others if each.index not in copied]


def _track(copy: "av.container.OutputContainer", source: Any, text_codec: str) -> SideTrack | None:
    stream = copied_track(copy, source)
    if stream is not None:
        return SideTrack(source, stream)
    if source.type != "subtitle" or not is_text_track(source):
        return None
    stream = copy.add_mux_stream(text_codec)
    stream.time_base = Fraction(1, 1000)
    stream.metadata.update(tags(source.metadata))
    return SideTrack(source, stream, text_codec)


def side_packets(
    facts: Container,
    start: float,
    end: float,
    film: "av.container.InputContainer",
    tracks: Sequence[SideTrack],
) -> Iterator[tuple[float, Any]]:
    """The packets of a stretch, in seconds of video time, with their times in the clip."""
    if not tracks:
        return
    by_index = {track.source.index: track for track in tracks}
    early = max(start - _EARLIER_S, 0.0)
    stream_time, _ = facts.timeline.stream_time(early)
    if early > 0 and stream_time > 0 and not facts.timeline.restarts:
        film.seek(int(stream_time * av.time_base))
    at = -math.inf
    for packet in demux(film, *(track.source for track in tracks)):
        if packet.pts is None or packet.time_base is None:
            continue
        clock = float(packet.time_base)
        seconds = facts.timeline.seconds(packet.pts * clock, packet.pos)
        if seconds > end + _INTERLEAVED_S and not facts.timeline.restarts:
            return
        track = by_index[packet.stream_index]
        copied = _moved(packet, track, seconds - start, end - start)
        if copied is not None:
            at = max(at, float(copied.pts * copied.time_base))
            yield at, copied


def _moved(packet: Any, track: SideTrack, seconds: float, length: float) -> Any:
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
