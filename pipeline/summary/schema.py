"""The records of a summary: chapters, and sentences that name what they rest on.

All times are seconds of video time. Knows no bank and no page.
"""

from dataclasses import dataclass

from encoders.schema import VideoInfo

Span = tuple[float, float]


@dataclass(frozen=True, slots=True)
class CitedSentence:
    """A sentence of a summary."""

    text: str
    video_id: str
    start: float  # seconds
    end: float
    # subtitle, speech, ocr: quoted from the film; caption, finding: a model wrote it
    channel: str
    sources: tuple[Span, ...]  # of the lines that it was taken or made from, in time order
    # True: the words stand in the lines of its span; False: a model wrote them from its sources
    is_quoted: bool = True
    parents: tuple[int, ...] = ()  # of a finding: numbers of the segments that it rests on


@dataclass(frozen=True, slots=True)
class Chapter:
    """A stretch of a film with one topic."""

    video_id: str
    start: float  # seconds
    end: float
    title: str
    sentences: tuple[CitedSentence, ...]  # the most telling ones, in time order
    pictures: tuple[float, ...]  # seconds that show it: one, or more where it has no words
    wall: float | None = None  # Unix seconds of `start`, where the film knows when it was


@dataclass(frozen=True, slots=True)
class FilmSummary:
    """The chapters of one film, or of a stretch of it."""

    info: VideoInfo
    start: float  # seconds
    end: float
    chapters: tuple[Chapter, ...]
    has_words: bool


@dataclass(frozen=True, slots=True)
class Summary:
    """What `reelbank summary` gives."""

    title: str
    films: tuple[FilmSummary, ...]  # in the order in which they were, where they know it
    sentences: tuple[CitedSentence, ...]  # of all films together: the overview
    notes: tuple[str, ...] = ()  # what the user must know
    model: str = ""  # that wrote sentences; "": all are quoted
    calls: int = 0  # of the model, by this run

    @property
    def chapters(self) -> tuple[Chapter, ...]:
        """Of all films, in order."""
        return tuple(chapter for film in self.films for chapter in film.chapters)
