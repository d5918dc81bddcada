"""The records of words in a video, and the role that finds them. Knows no file format, no disk and no question.

A line is of one kind. What was seen or heard (`OBSERVED`) and what a model wrote about the pictures (`WRITTEN`) are never
mixed up: every line says which it is, and whoever searches can leave one of them out.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from torch import Tensor

OBSERVED = ("subtitle", "ocr", "speech")
WRITTEN = ("caption",)
KINDS = OBSERVED + WRITTEN

MAX_CHARS = 1000  # characters of a line; a longer one becomes several of the same times
# steer only how text is drawn
_GONE = re.compile("[\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff\ufffe\uffff]")


@dataclass(frozen=True, slots=True)
class TextLine:
    """Some words of a video and when they were there."""

    video_id: str
    start: float  # seconds of video time, inclusive
    end: float  # seconds, exclusive
    kind: str  # one of KINDS
    text: str
    known: float  # seconds: who asks before this second does not see the line
    confidence: float = 1.0  # 0..1; 1 where nothing was guessed
    # left, top, right, bottom as shares of the picture
    box: tuple[float, float, float, float] | None = None


@dataclass(frozen=True, slots=True)
class TextSpan:
    """All lines that an extractor found between two seconds of a video."""

    start: float
    end: float
    lines: tuple[TextLine, ...]
    last: bool  # the video ends here
    note: str = ""  # what the user must know about it, such as lines that could not be read


@dataclass(frozen=True, slots=True)
class TextBlock:
    """A stretch as the bank keeps it, with where it comes from."""

    video_id: str
    extractor: str
    # name, version and settings of the extractor; lines of different ones never stand side by side
    made_with: str
    number: int  # 0, 1, 2, ... in time order within the run
    span: TextSpan


@dataclass(frozen=True, slots=True)
class VideoFile:
    """The part of a video file that a bank holds as one video."""

    video_id: str
    path: Path
    begin: float = 0.0  # seconds
    end: float | None = None  # None: the file's end
    duration: float = 0.0  # seconds of the whole file, as it says


class TextExtractor(Protocol):
    """Finds the words of a video. Restarted at the end of one of its stretches it goes on with the same ones."""

    name: str

    def missing(self) -> str:
        """Why it cannot work here, with the remedy; "" when it can."""
        ...

    def made_with(self, video: VideoFile) -> str:
        """Name, version and settings, and what the lines come from where that is not the video itself."""
        ...

    def spans(self, video: VideoFile, after: float = 0.0) -> Iterator[TextSpan]:
        """In time order, without gaps, from `after` on; the last one says so. UserError on what cannot be read at all."""
        ...


class SentenceEncoder(Protocol):
    """Texts -> unit vectors of width E."""

    @property
    def made_with(self) -> str:
        """Identifies the model: vectors are comparable only if it is the same."""
        ...

    def embed(self, texts: Sequence[str]) -> Tensor:
        """[B, E] float32 unit rows on the CPU, one per text."""
        ...

    def tokens(self, texts: Sequence[str]) -> Iterator[Tensor]:
        """For each text [n, E] float32 unit rows on the CPU, one per token."""
        ...


def clean_text(text: str) -> str:
    """One line without marks that only steer drawing, without control characters and half characters."""
    text = _GONE.sub("", unicodedata.normalize("NFC", text))
    text = "".join(" " if unicodedata.category(c) in ("Cc", "Zl", "Zp") else c for c in text)
    return " ".join(text.encode("utf-8", "replace").decode().split())


def split_line(line: TextLine) -> Iterator[TextLine]:
    """A line in pieces of at most LONGEST characters, cut between words where there are any. None of an empty one."""
    text = clean_text(line.text)
    while text:
        cut = len(text) if len(text) <= MAX_CHARS else text.rfind(" ", 1, MAX_CHARS + 1)
        cut = cut if cut > 0 else MAX_CHARS
        yield replace(line, text=text[:cut])
        text = text[cut:].lstrip()
