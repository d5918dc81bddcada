"""The records of words in a video, and the roles that find and embed them. Knows no file format, no
disk and no question.

Every line has one kind. Observed lines (`OBSERVED`: seen or heard) and lines that a model wrote
about the pictures (`WRITTEN`) never mix: every line states its kind, and a search can exclude
kinds. Lines of things in the pictures (`THINGS`) are observed as well; their text names what is
seen.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from torch import Tensor

# found by a detector of the user's; with a box in the picture; of the picture as a whole
THINGS = ("detection", "object", "label")
OBSERVED = ("subtitle", "ocr", "speech", *THINGS)
WRITTEN = ("caption",)
KINDS = OBSERVED + WRITTEN
# kinds whose lines are words of somebody, and can be quoted
WORDS = tuple(kind for kind in KINDS if kind not in THINGS)
# what a model said of a segment when it was asked about it; such lines are a cache, and no search
# finds them (memory/text/findings.py)
FINDING = "finding"

MAX_CHARS = 1000  # longer lines are split into several with the same times
# marks that only control how text is drawn
_GONE = re.compile("[\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff\ufffe\uffff]")


@dataclass(frozen=True, slots=True)
class TextLine:
    """Some words of a video and their times."""

    video_id: str
    start: float  # seconds of video time, inclusive
    end: float  # seconds, exclusive
    kind: str  # one of KINDS, or FINDING
    text: str
    known: float  # seconds: questions asked before this second do not see the line
    confidence: float = 1.0  # 0..1; 1 if nothing was guessed
    # left, top, right, bottom as shares of the picture
    box: tuple[float, float, float, float] | None = None
    parents: tuple[int, ...] = ()  # of a finding: numbers of the segments that it rests on


@dataclass(frozen=True, slots=True)
class TextSpan:
    """All lines that an extractor found between two seconds of a video."""

    start: float
    end: float
    lines: tuple[TextLine, ...]
    last: bool  # True for the last text span of the video
    note: str = ""  # a message for the user, such as lines that could not be read


@dataclass(frozen=True, slots=True)
class TextBlock:
    """A text span as the bank stores it, with its origin."""

    video_id: str
    extractor: str
    # name, version and settings of the extractor; a video never mixes lines of different ones
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
    """Finds the words of a video. Restarted at the end of one of its text spans, it continues with
    the same ones.
    """

    name: str

    def missing(self) -> str:
        """Why it cannot work here, with the remedy; "" if it can."""
        ...

    def applies_to(self, video: VideoFile) -> bool:
        """False if the video certainly has no such words, as the head of its file says."""
        ...

    def made_with(self, video: VideoFile) -> str:
        """Name, version and settings, and the source of the lines if it is not the video itself."""
        ...

    def spans(self, video: VideoFile, after: float = 0.0) -> Iterator[TextSpan]:
        """Text spans in time order, without gaps, from `after` on; the last one says so. UserError
        if the source cannot be read at all.
        """
        ...


@dataclass(frozen=True, slots=True)
class WordVectors:
    """A text as vectors of width E, float32 unit rows on the CPU."""

    words: tuple[str, ...]  # in order, as written
    rows: Tensor  # [n, E]: of each word, in its context
    sentence: Tensor  # [E]: of the whole text, as `embed` gives it


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

    def words(self, texts: Sequence[str]) -> Iterator[WordVectors]:
        """Each text word by word, and as a whole, in one pass of the model."""
        ...


def clean_text(text: str) -> str:
    """One line, without marks that only control drawing, control characters and broken
    characters.
    """
    text = _GONE.sub("", unicodedata.normalize("NFC", text))
    text = "".join(" " if unicodedata.category(c) in ("Cc", "Zl", "Zp") else c for c in text)
    return " ".join(text.encode("utf-8", "replace").decode().split())


def split_line(line: TextLine) -> Iterator[TextLine]:
    """A line in pieces of at most MAX_CHARS characters, cut between words if possible. An empty
    line has no pieces.
    """
    text = clean_text(line.text)
    while text:
        cut = len(text) if len(text) <= MAX_CHARS else text.rfind(" ", 1, MAX_CHARS + 1)
        cut = cut if cut > 0 else MAX_CHARS
        yield replace(line, text=text[:cut])
        text = text[cut:].lstrip()
