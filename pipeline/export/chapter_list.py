"""Chapters of a film for players and for the web: WebVTT, FFmpeg's metadata, and YouTube's text.

Knows times and titles; no bank, no summary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from encoders.errors import UserError
from pipeline.config.units import Hours, format_stamp, format_time
from pipeline.export.text_file import write_text

FORMATS = (".vtt", ".ffmeta", ".txt")
_YOUTUBE_FEWEST, _YOUTUBE_SHORTEST_S = 3, 10.0  # YouTube shows no chapters otherwise


@dataclass(frozen=True, slots=True)
class ChapterMark:
    """One chapter."""

    start: float  # seconds of video time
    end: float
    title: str


@dataclass(frozen=True, slots=True)
class ChapterList:
    """The chapters of one film, in time order."""

    marks: tuple[ChapterMark, ...]

    def __post_init__(self) -> None:
        """ValueError where a chapter ends before it begins, or begins before the one before."""
        starts = [mark.start for mark in self.marks]
        if starts != sorted(starts) or any(mark.end < mark.start for mark in self.marks):
            raise ValueError("chapters that are not in time order")

    @classmethod
    def of(cls, spans: Sequence[tuple[float, float]], titles: Sequence[str]) -> "ChapterList":
        """Chapters of spans in seconds and as many titles."""
        marks = zip(spans, titles, strict=True)
        return cls(tuple(ChapterMark(*span, _one_line(title)) for span, title in marks))

    def webvtt(self) -> str:
        """A WebVTT file of kind `chapters`, for <track> and players."""
        cues = (
            f"{number}\n{format_stamp(mark.start)} --> {format_stamp(mark.end)}\n"
            f"{_escaped(mark.title)}\n"
            for number, mark in enumerate(self.marks, 1)
        )
        return "WEBVTT\n\n" + "\n".join(cues)

    def ffmetadata(self) -> str:
        """What FFmpeg reads: `ffmpeg -i film.mp4 -i chapters.ffmeta -map_metadata 1 -c copy`."""
        chapters = (
            f"[CHAPTER]\nTIMEBASE=1/1000\nSTART={round(1000 * mark.start)}\n"
            f"END={round(1000 * mark.end)}\ntitle={_behind_backslashes(mark.title)}\n"
            for mark in self.marks
        )
        return ";FFMETADATA1\n" + "".join(chapters)

    def youtube(self) -> str:
        """Lines for the description of a video at YouTube. The first one has to be at 00:00, so it
        is, also for chapters of a later stretch."""
        is_long = bool(self.marks) and self.marks[-1].start >= 3600
        hours: Hours = "always" if is_long else "if needed"
        return "".join(
            f"{format_time(mark.start if number else 0.0, hours=hours)} {mark.title}\n"
            for number, mark in enumerate(self.marks)
        )

    @property
    def youtube_note(self) -> str:
        """Why YouTube will show no chapters; "" where it will."""
        if len(self.marks) < _YOUTUBE_FEWEST:
            return f"YouTube shows chapters from {_YOUTUBE_FEWEST} on; there are {len(self.marks)}"
        if any(mark.end - mark.start < _YOUTUBE_SHORTEST_S for mark in self.marks):
            return f"YouTube shows no chapters below {_YOUTUBE_SHORTEST_S:g} s, and one is shorter"
        return ""

    def write(self, path: Path) -> None:
        """Write the file that the suffix says: .vtt, .ffmeta or .txt (YouTube). UserError on
        another suffix, and where the file cannot be written."""
        write_text(path, self.text(path.suffix))

    def text(self, suffix: str) -> str:
        """The text of a format. UserError where there is no such format."""
        match suffix.lower():
            case ".vtt":
                return self.webvtt()
            case ".ffmeta":
                return self.ffmetadata()
            case ".txt":
                return self.youtube()
        raise UserError(
            f"Chapters cannot be written as {suffix or 'a file without a suffix'}; use .vtt "
            "(WebVTT), .ffmeta (FFmpeg) or .txt (YouTube)"
        )


def _one_line(title: str) -> str:
    return " ".join(title.split())


def _escaped(title: str) -> str:
    return title.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _behind_backslashes(title: str) -> str:
    return "".join(f"\\{each}" if each in "=;#\\" else each for each in title)
