"""Subtitles: files next to a video (.srt, .vtt, .ass, .ssa) and tracks inside it. Knows pysubs2 and
PyAV's demuxer.

A file belongs to a video if its name is the video's name, perhaps followed by a language: talk.srt
and talk.en.vtt belong to talk.mp4. A cue is known from its end on. Cues with impossible times are
dropped and counted; cues may overlap.
"""

import codecs
import importlib.metadata
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import av
import av.subtitles.stream

from encoders.errors import UserError
from encoders.sources.container import fingerprint, inspect
from encoders.text.lines import TextLine, TextSpan, VideoFile, split_line

SUFFIXES = (".srt", ".vtt", ".ass", ".ssa")
SPAN_S = 600.0  # seconds of video in one text span
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# a line of times inside a cue could not be parsed
_ARROW = re.compile(r"\n*[^\n]*-->.*", re.DOTALL)
_LINE_BREAKS = re.compile(r"\\[Nnh]")
_TAGS = re.compile(r"\{[^{}]*\}|</?[a-zA-Z][^<>]*>")

Cue = tuple[float, float, str]  # start and end in seconds, text


@dataclass(frozen=True)
class Subtitles:
    """The `subtitles` extractor.

    path: one subtitle file, for the one video that is read; "" = the files next to each video.
    tracks: True to read tracks inside the video if there is no file.
    """

    path: str = ""
    tracks: bool = True
    name = "subtitles"

    def missing(self) -> str:
        """The missing package, with the remedy; "" if pysubs2 is installed."""
        return "" if find_spec("pysubs2") else "pysubs2 is not installed: pip install pysubs2"

    def made_with(self, video: VideoFile) -> str:
        """Version and settings, with the fingerprints of the files: an edited file is
        read again.
        """
        files = ", ".join(f"{path.name}:{fingerprint(path)}" for path in self._files(video))
        version = importlib.metadata.version("pysubs2")
        return f"Subtitles(pysubs2 {version}, tracks={self.tracks}, files=[{files}])"

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
                    f"text.subtitles.path={self.path} is not a file; give a .srt, .vtt or .ass file"
                )
            return [path]
        stem = video.path.stem
        candidates = (
            path
            for path in video.path.parent.iterdir()
            if path.suffix.lower() in SUFFIXES and path.is_file()
        )
        return sorted(
            path for path in candidates if path.stem == stem or path.stem.startswith(stem + ".")
        )

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
            cues += file_cues
            notes += [note] if note else []
        if not cues and self.tracks:
            cues, more = read_tracks(video.path)
            notes += more
        if not cues and not notes:
            notes.append(f"no subtitles are beside {video.path.name} or in it")
        return cues, notes


def read_file(path: Path) -> tuple[list[Cue], str]:
    """Cues of a subtitle file, in the file's order, and a message about problems ("" if there are
    none).
    """
    import pysubs2

    text, wrong = _decoded(path)
    if text is None:
        return [], wrong
    notes = [wrong] if wrong else []
    try:
        events = [
            event
            for event in pysubs2.SSAFile.from_string(text, format_=_format(path))
            if not event.is_comment
        ]
    except (pysubs2.Pysubs2Error, ValueError, KeyError, IndexError, TypeError) as error:
        return (
            [],
            f"{path} cannot be read as subtitles "
            f"({str(error).splitlines()[0] if str(error) else type(error).__name__})",
        )
    cues, bad = [], 0
    for event in events:
        words = event.plaintext
        bad += words.count("-->")
        words = _ARROW.sub("", "\n" + words).strip()
        if not 0 <= event.start < event.end:
            bad += 1
        elif words:
            cues.append((event.start / 1000, event.end / 1000, words))
    stated = text.count("-->")
    bad = max(bad, stated - len(events)) if stated else bad
    if bad:
        total = max(stated, len(events))
        notes.append(
            f"{bad} of {total} subtitles in {path.name} were left out, as their times make no sense"
        )
    if not cues and not bad:
        notes.append(f"{path.name} has no subtitle in it")
    return cues, "; ".join(notes)


def read_tracks(path: Path) -> tuple[list[Cue], list[str]]:
    """Cues of all text tracks inside a video, and messages about the other tracks."""
    zero = 0.0
    cues: list[Cue] = []
    notes: list[str] = []
    with av.open(str(path), metadata_errors="replace") as container:
        tracks = list(container.streams.subtitles)
        if not tracks:
            return [], []
        facts = inspect(path)
        zero = facts.timeline.parts[0].stream_start
        pictured = [t for t in tracks if t.codec_context is None or "bitmap" in _kind(t)]
        if pictured:
            notes.append(
                f"{len(pictured)} of {len(tracks)} subtitle tracks of {path.name} are pictures; "
                "text=ocr reads those"
            )
        written = [track for track in tracks if track not in pictured]
        try:
            for packet in container.demux(written) if written else ():
                if packet.pts is None or packet.time_base is None or not packet.size:
                    continue
                start = float(packet.pts * packet.time_base) - zero
                end = start + float((packet.duration or 0) * packet.time_base)
                words = " ".join(_words(packet))
                if words and start < end:
                    cues.append((max(start, 0.0), end, words))
        except av.FFmpegError:
            notes.append(f"the subtitles inside {path.name} break off")
    return cues, notes


def _kind(track: "av.subtitles.stream.SubtitleStream") -> str:
    name = track.codec_context.name
    return (
        "bitmap"
        if name in ("dvdsub", "dvd_subtitle", "pgssub", "hdmv_pgs_subtitle", "dvbsub", "xsub")
        else name
    )


def _words(packet: "av.Packet") -> Iterator[str]:
    for shown in packet.decode():
        raw: bytes = getattr(shown, "dialogue", b"") or getattr(shown, "text", b"")
        yield _TAGS.sub("", _LINE_BREAKS.sub(" ", raw.decode("utf-8", "replace"))).strip()


def _format(path: Path) -> str | None:
    return {".srt": "srt", ".vtt": "vtt", ".ass": "ass", ".ssa": "ssa"}.get(path.suffix.lower())


def _decoded(path: Path) -> tuple[str | None, str]:
    """The text of a file in any encoding, and a message about problems."""
    try:
        data = path.read_bytes()
    except OSError as error:
        return None, f"{path} cannot be read ({(error.strerror or str(error)).lower()})"
    marked = next((name for bom, name in _BOMS if data.startswith(bom)), None)
    try:
        return _unix(data.decode(marked or "utf-8")), ""
    except UnicodeDecodeError:
        if marked is not None or b"\0" in data:
            return None, f"{path} is no text file"
    name = "cp1252"
    if find_spec("charset_normalizer"):
        from charset_normalizer import from_bytes

        best = from_bytes(data).best()
        name = best.encoding if best is not None else name
    return _unix(
        data.decode(name, "replace")
    ), f"{path.name} is not UTF-8 and was read as {name}; save it as UTF-8 if it looks wrong"


def _unix(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")
