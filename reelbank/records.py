"""The records that a caller gets. All are frozen; times are seconds of video time.

Knows films, for the pictures and clips of a moment; loads nothing until one is asked for.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, overload

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, slots=True)
class Video:
    """A video of a bank."""

    id: str  # 16 hex digits of the content, or the name of a stream
    path: str  # of the file, or the address of a stream
    duration: float  # seconds; of a stream, up to its last stored moment
    encoded: float  # seconds that the bank has
    is_complete: bool
    bank: str = ""  # its folder

    def __str__(self) -> str:
        return self.path or self.id


@dataclass(frozen=True, slots=True)
class Clip:
    """A file that was cut from a video."""

    path: Path
    start: float  # of its first picture: at a keyframe, so at the moment or before, unless exact
    end: float
    nbytes: int
    notes: tuple[str, ...] = ()  # such as tracks that its format cannot hold
    encoded: int = 0  # pictures that were encoded again


@dataclass(frozen=True, slots=True)
class Moment:
    """A stretch of a video."""

    video: Video
    start: float
    end: float

    @property
    def timecode(self) -> str:
        """When it begins, as text: "00:12:31"."""
        from pipeline.config.units import format_time

        return format_time(self.start, hours="always")

    @property
    def picture_at(self) -> float:
        """The second of the picture that `image` gives."""
        return self.start

    def image(self, *, longest_side: int | None = None) -> "Image":
        """The picture of the moment, as players show it.

        longest_side: in pixels, at most; None: as large as in the film. Where the film is gone or
        another one, it is the thumbnail that the bank stores (source.keep=jpeg). Error when there
        is none.
        """
        from reelbank.pictures import picture_of

        return picture_of(self, longest_side)

    def clip(self, path: str | PathLike[str], *, exact: bool = False) -> Clip:
        """Write the moment to a file of its own (.mp4, .mkv, .mov), sound and subtitles with it, or
        to an animated .gif or .webp.

        Packets are copied, so the clip begins at the keyframe before the moment: `.start` of the
        result tells where. exact: it begins and ends with the moment, and pictures next to its ends
        are encoded again. Error when the film is gone, or the format cannot hold it.
        """
        from reelbank.pictures import clip_of

        return clip_of(self, path, exact)


@dataclass(frozen=True, slots=True)
class Span(Moment):
    """A stretch of the video that an answer rests on."""


@dataclass(frozen=True, slots=True)
class Evidence(Moment):
    """A frame or a line of text that belongs to an answer."""

    kind: str  # frame, subtitle, speech, ocr, detection, object, label or caption
    weight: float  # 0..1: the answer's attention on a frame; of a line, the question's words in it
    text: str = ""  # of a line
    was_read: bool = True  # False: a line that the search found beside the answer


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer and what it rests on."""

    question: str
    text: str
    spans: tuple[Span, ...]  # rising
    evidence: tuple[Evidence, ...]  # frames and then lines, the heaviest first
    video: Video
    is_shown: bool  # False: the answer says that the video does not show it; nothing is cited then
    at: float | None = None  # the second of the question; None: the end of the video
    warning: str = ""  # what the caller must know, such as a file that breaks off
    seconds: float = 0.0  # that the answer took

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Hit(Moment):
    """A moment that fits a query."""

    score: float  # of fused ranks: a comparison within one result alone
    channels: tuple[str, ...]  # that found it, such as subtitle, object or picture
    words: str = ""  # the matching lines
    best_at: float = 0.0  # the second of the frame that fits best

    @property
    def picture_at(self) -> float:
        """The second of the frame that fits best."""
        return self.best_at


@dataclass(frozen=True, slots=True)
class Hits(Sequence[Hit]):
    """The hits of a search, best first."""

    hits: tuple[Hit, ...]
    notes: tuple[str, ...] = ()  # what the caller must know, such as a channel that was left out

    @overload
    def __getitem__(self, place: int) -> Hit: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[Hit, ...]: ...
    def __getitem__(self, place: int | slice) -> Hit | tuple[Hit, ...]:
        return self.hits[place]

    def __len__(self) -> int:
        return len(self.hits)

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an encoding is."""

    path: str
    seconds: float  # of video that are encoded
    duration: float
    nbytes: int  # written by this call

    @property
    def share(self) -> float:
        """0..1."""
        return min(self.seconds / self.duration, 1.0) if self.duration else 0.0


@dataclass(frozen=True, slots=True)
class Report:
    """What the bank has of a video after `add`, and what the call did."""

    video: Video
    frames: int
    new_segments: int  # 0: the bank had all of it
    nbytes: int  # written by this call
    seconds: float  # that the call took
    warning: str = ""
    lines: dict[str, int] = field(default_factory=dict)  # lines of text by extractor
