"""Subtitles: files next to a video (.srt, .vtt, .ass, .ssa) and tracks inside it. Knows PyAV's
demuxer.

A file belongs to a video if its name is the video's name, perhaps followed by a language: talk.srt
and talk.en.vtt belong to talk.mp4; but talk.2.srt belongs to talk.2.mp4 if that is there. A cue is
known from its end on. Cues with impossible times are dropped and counted; cues may overlap.
"""

import importlib.metadata
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import av.subtitles.stream

from encoders.errors import UserError
from encoders.sources.container import fingerprint, inspect, open_film
from encoders.sources.ffmpeg_name import ffmpeg_name
from encoders.sources.packets.scan import demux
from encoders.text.lines import TextLine, TextSpan, VideoFile, split_line
from encoders.text.subtitle_files import (
    Cue,
    plain_substation,
    plain_text,
    read_file,
    without_repeats,
)

SUFFIXES = (".srt", ".vtt", ".ass", ".ssa")
VIDEO_SUFFIXES = frozenset(
    ".3g2 .3gp .asf .avi .f4v .flv .m1v .m2ts .m2v .m4v .mkv .mov .mp4 .mpeg .mpg .mts .mxf .ogg "
    ".ogm .ogv .ts .vob .webm .wmv .y4m".split()
)
_PICTURES = ("dvdsub", "dvd_subtitle", "pgssub", "hdmv_pgs_subtitle", "dvbsub", "xsub")
SPAN_S = 600.0  # seconds of video in one text span
# lines that were read by rules of another number are read again
_RULES = 2


@dataclass(frozen=True)
class Subtitles:
    """The `subtitles` extractor.

    path: one subtitle file, for the one video that is read, also .json as LongVideoBench writes it;
    "" = the files next to each video.
    path_from: second of that file at which the video begins; earlier cues are left out.
    tracks: True to read tracks inside the video if there is no file.
    """

    path: str = ""
    tracks: bool = True
    path_from: float = 0.0
    name = "subtitles"

    def missing(self) -> str:
        """Nothing: pysubs2 comes with Reelbank."""
        return ""

    def applies_to(self, video: VideoFile) -> bool:
        """True if there is a file beside the video, or a track inside it."""
        if self._files(video):
            return True
        with av.open(ffmpeg_name(video.path), metadata_errors="replace") as container:
            return self.tracks and bool(container.streams.subtitles)

    def made_with(self, video: VideoFile) -> str:
        """Version and settings, with the fingerprints of the files: an edited file is
        read again.
        """
        files = ", ".join(f"{path.name}:{fingerprint(path)}" for path in self._files(video))
        version = importlib.metadata.version("pysubs2")
        begin = f", from={self.path_from:g}" if self.path and self.path_from else ""
        return (
            f"Subtitles({_RULES}, pysubs2 {version}, tracks={self.tracks}, files=[{files}]{begin})"
        )

    def spans(self, video: VideoFile, after: float = 0.0) -> Iterator[TextSpan]:
        """One for every ten minutes."""
        cues, notes = self._cues(video)
        end = video.end if video.end is not None else max(video.duration, video.begin)
        in_range = sorted({cue for cue in cues if video.begin <= cue[0] < end and cue[0] >= after})
        late = sum(cue[0] >= max(video.duration, 1e-9) for cue in cues)
        if late:
            notes.append(
                f"{late} of {len(cues)} subtitles come after the video's end and were left out"
            )
        lines = [
            piece
            for a, b, text in in_range
            for piece in split_line(
                TextLine(video.video_id, a, min(b, end), "subtitle", text, min(b, end))
            )
        ]
        at, note = after, "; ".join(notes)
        while True:
            stop = (at // SPAN_S + 1) * SPAN_S
            last = stop >= end
            stop = max(end, at) if last else stop
            yield TextSpan(
                at,
                stop,
                tuple(line for line in lines if line.start >= at and (last or line.start < stop)),
                last,
                note,
            )
            if last:
                return
            at, note = stop, ""

    def _files(self, video: VideoFile) -> list[Path]:
        if self.path:
            path = Path(self.path)
            if not path.is_file():
                raise UserError(
                    f"text.subtitles.path={self.path} is not a file; give a .srt, .vtt, .ass or "
                    ".json file"
                )
            return [path]
        beside = list(video.path.parent.iterdir())
        videos = {path.stem for path in beside if path.suffix.lower() in VIDEO_SUFFIXES}
        videos.add(video.path.stem)
        return sorted(
            path
            for path in beside
            if path.suffix.lower() in SUFFIXES
            and _owner(path.stem, videos) == video.path.stem
            and path.is_file()
        )

    def _from_begin(self, cues: Iterable[Cue]) -> list[Cue]:
        """The cues of one file, counted from the begin of the video."""
        begin = self.path_from if self.path else 0.0
        return [(max(a - begin, 0.0), b - begin, text) for a, b, text in cues if b > begin]

    def _cues(self, video: VideoFile) -> tuple[list[Cue], list[str]]:
        cues: list[Cue] = []
        notes: list[str] = []
        files = self._files(video)
        for path in files:
            file_cues, note = read_file(path)
            if self.path and not file_cues:
                raise UserError(
                    f"{note or f'{path} has no subtitle in it'}; mend the file or leave "
                    "text.subtitles.path= out"
                )
            cues += self._from_begin(file_cues)
            notes += [note] if note else []
        if not cues and self.tracks:
            cues, more = read_tracks(video.path)
            notes += more
        if not cues and not notes:
            notes.append(f"no subtitles are beside {video.path.name} or in it")
        return cues, notes


def read_tracks(path: Path) -> tuple[list[Cue], list[str]]:
    """Cues of all text tracks inside a video, and messages about the other tracks."""
    cues: defaultdict[int, list[Cue]] = defaultdict(list)  # by the track's number
    notes: list[str] = []
    facts = inspect(path)
    with open_film(facts) as container:
        tracks = list(container.streams.subtitles)
        if not tracks:
            return [], []
        timeline = facts.timeline
        pictured = [t for t in tracks if not is_text_track(t)]
        if pictured:
            notes.append(
                f"{len(pictured)} of {len(tracks)} subtitle tracks of {path.name} are pictures; "
                "text=ocr reads those"
            )
        written = [track for track in tracks if track not in pictured]
        try:
            for packet in demux(container, *written) if written else ():
                if packet.pts is None or packet.time_base is None:
                    continue
                start = timeline.seconds(float(packet.pts * packet.time_base), packet.pos)
                end = start + float((packet.duration or 0) * packet.time_base)
                words = packet_text(packet)
                if words and start < end:
                    cues[packet.stream_index].append((max(start, 0.0), end, words))
        except av.FFmpegError:
            notes.append(f"the subtitles inside {path.name} break off")
    return [cue for track in cues.values() for cue in without_repeats(track)], notes


def is_text_track(track: "av.subtitles.stream.SubtitleStream") -> bool:
    """False for subtitles that are pictures."""
    return track.codec_context is not None and track.codec_context.name not in _PICTURES


def packet_text(packet: "av.Packet") -> str:
    """The words of a packet. FFmpeg's decoders give other kinds of text as events of .ass; of
    these three they take more between angle brackets and braces for marks than is.
    """
    kind, data = packet.stream.codec_context.name, bytes(packet)
    if kind == "mov_text":  # a length, the text, and boxes of styles
        return plain_text(data[2 : 2 + int.from_bytes(data[:2], "big")].decode("utf-8", "replace"))
    if kind in ("subrip", "srt", "webvtt", "text"):
        return plain_text(data.decode("utf-8", "replace"))
    visible = [
        getattr(text, "dialogue", b"") or getattr(text, "text", b"") for text in packet.decode()
    ]
    return "\n".join(plain_substation(raw.decode("utf-8", "replace")) for raw in visible)


def _owner(name: str, videos: Iterable[str]) -> str:
    """The longest of the names of videos with which the name of a subtitle file begins, all
    without their endings; "" if there is none.
    """
    owners = (video for video in videos if name == video or name.startswith(video + "."))
    return max(owners, key=len, default="")
