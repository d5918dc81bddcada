"""A summary as a caller gets it: chapters, and sentences that are moments of a film.

Knows the records of the package; loads nothing until a file is written.
"""

from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from reelbank.records import Moment, Video

if TYPE_CHECKING:
    from pipeline.commands.output.summary_report import SummaryReport


@dataclass(frozen=True, slots=True)
class Sentence(Moment):
    """A sentence of a summary, and the stretch of the film that it rests on."""

    text: str
    channel: str  # subtitle, speech, ocr or caption
    is_quoted: bool = True  # True: words of the film; False: a model wrote them

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Chapter(Moment):
    """A stretch of a film with one topic."""

    title: str  # words of the film; "Part 2" where it has none
    sentences: tuple[Sentence, ...]  # that tell most of it, in time order
    show_at: float = 0.0  # the second of the picture that shows it

    @property
    def picture_at(self) -> float:
        """The second of the picture that `image` gives."""
        return self.show_at

    def __str__(self) -> str:
        return f"{self.timecode} {self.title}"


@dataclass(frozen=True, slots=True)
class Summary:
    """The chapters of one film or of several, and the sentences that tell most of all of them."""

    title: str
    videos: tuple[Video, ...]  # in the order in which they were, where they know it
    sentences: tuple[Sentence, ...]
    chapters: tuple[Chapter, ...]  # of all videos, in order
    notes: tuple[str, ...] = ()  # what the caller must know, such as a film without words
    _report: "SummaryReport | None" = field(default=None, repr=False, compare=False)

    def write(self, path: str | PathLike[str]) -> Path:
        """Write a report with a picture of each chapter, a page (.html) or Markdown (.md).

        Both hold their pictures, so the file can be sent as it is. Error on another suffix, where
        the file cannot be written, and once the bank is closed.
        """
        assert self._report is not None
        target = Path(path).expanduser()
        self._report.write(target)
        return target

    def write_chapters(self, path: str | PathLike[str]) -> Path:
        """Write the chapters of one film for players (.vtt), FFmpeg (.ffmeta), or YouTube (.txt).

        Error on another suffix, where the file cannot be written, and where the summary has several
        films.
        """
        assert self._report is not None
        target = Path(path).expanduser()
        self._report.write_chapters(target)
        return target

    def __str__(self) -> str:
        return "\n".join(sentence.text for sentence in self.sentences)
