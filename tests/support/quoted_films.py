"""Talks and lectures with questions about what is said and printed in them. Knows no bank.

tests/data/quotes/*.txt hold them: "# name", then lines in the order in which they are said,
"[title]" of a slide and "- row" of it, "? same|other | question | part of its line | truth / truth"
and "! question that nothing in the film answers". In "other" the question shares no telling word
with its line.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from encoders.text.lines import TextLine
from memory.text import tokenizer
from tests.support.paths import ROOT
from tests.support.videos import write_video

FOLDER = ROOT / "tests" / "data" / "quotes"
SIZE = (960, 540)
_WORDS_A_SECOND, _PAUSE_S = 2.6, 0.4


@dataclass(frozen=True)
class FilmLine:
    """Words at a time: said, or printed on a slide."""

    text: str
    start: float  # seconds
    end: float
    kind: str  # subtitle or ocr


@dataclass(frozen=True)
class FilmQuestion:
    """A question; without truth where nothing in the film answers it."""

    text: str
    words: str = ""  # same, other; "" where nothing answers
    line: str = ""  # part of the line that answers
    truths: tuple[str, ...] = ()  # any of them answers

    def is_answered_by(self, text: str) -> bool:
        """Whether a text has the truth, as whole words."""
        return any(re.search(rf"\b{re.escape(t)}\b", text, re.IGNORECASE) for t in self.truths)


@dataclass(frozen=True)
class QuotedFilm:
    """A talk or a lecture with slides."""

    name: str
    lines: tuple[FilmLine, ...]
    questions: tuple[FilmQuestion, ...]

    @property
    def seconds(self) -> float:
        """Length of the film."""
        return max(line.end for line in self.lines) + 1.0

    @property
    def has_slides(self) -> bool:
        """Whether anything is printed."""
        return any(line.kind == "ocr" for line in self.lines)

    def text_lines(self, video_id: str) -> tuple[TextLine, ...]:
        """The lines as a perfect extractor finds them."""
        rows = sorted(self.lines, key=lambda line: (line.start, line.kind))
        return tuple(TextLine(video_id, r.start, r.end, r.kind, r.text, r.start) for r in rows)

    def srt(self) -> str:
        """What is said, as a subtitle file."""
        said = [line for line in self.lines if line.kind == "subtitle"]
        return "\n".join(
            f"{number}\n{_stamp(line.start)} --> {_stamp(line.end)}\n{line.text}\n"
            for number, line in enumerate(said, 1)
        )

    def write(self, path: Path, fps: float = 2.0) -> None:
        """A film with the slides, and the subtitles beside it."""
        write_video(path, self.seconds, fps, size=SIZE, paint=self.picture)
        path.with_suffix(".srt").write_text(self.srt(), encoding="utf-8")

    def picture(self, number: int, seconds: float) -> np.ndarray:
        """[height, width, 3] uint8: the slide, or a grey wall."""
        frame = Image.new("RGB", SIZE, (96, 104, 112))
        rows = [x for x in self.lines if x.kind == "ocr" and x.start <= seconds + 1e-6 < x.end]
        if rows:
            draw = ImageDraw.Draw(frame)
            draw.rectangle((40, 30, 920, 510), fill=(240, 240, 235))
            for row, line in enumerate(rows):
                size = 40 if row == 0 else 30
                place = (80, 60 if row == 0 else 90 + 75 * row)
                draw.text(place, line.text, font=_font(size), fill=(25, 25, 60))
        return np.asarray(frame)


def films(name: str) -> tuple[QuotedFilm, ...]:
    """The films of a set: "calibration" or "test"."""
    text = (FOLDER / f"{name}.txt").read_text(encoding="utf-8")
    return tuple(_film(part) for part in re.split(r"^# ", text, flags=re.MULTILINE)[1:])


def joined(talks: Sequence[QuotedFilm]) -> tuple[QuotedFilm, list[float]]:
    """Talks one after the other as one film, and the seconds at which a new one begins.

    The pause between two talks is that between two sentences, so that it tells nothing.
    """
    lines: list[FilmLine] = []
    borders: list[float] = []
    at = 1.0
    for talk in talks:
        shift = at - talk.lines[0].start
        borders += [round(at, 2)] if lines else []
        lines += [
            replace(line, start=round(line.start + shift, 2), end=round(line.end + shift, 2))
            for line in talk.lines
        ]
        at = max(line.end for line in lines) + _PAUSE_S
    return QuotedFilm("+".join(talk.name for talk in talks), tuple(lines), ()), borders


def shared(question: str, line: str) -> set[str]:
    """Telling words that both have."""
    return {word for term in tokenizer.query(question).terms for word in term} & set(
        tokenizer.words(line)
    )


def _film(part: str) -> QuotedFilm:
    name, *rows = part.strip().splitlines()
    lines: list[FilmLine] = []
    questions: list[FilmQuestion] = []
    slide: list[str] = []
    at = slide_began = 1.0

    def close_slide() -> None:
        lines.extend(FilmLine(text, slide_began, at, "ocr") for text in slide)
        slide.clear()

    for row in rows:
        if row.startswith("[") or row[0] in "?!":
            close_slide()
        if row.startswith("["):
            slide_began = at
            slide.append(row.strip("[]"))
        elif row.startswith("- "):
            slide.append(row[2:])
        elif row.startswith("? "):
            words, text, line, truths = (each.strip() for each in row[2:].split(" | "))
            questions.append(FilmQuestion(text, words, line, tuple(truths.split(" / "))))
        elif row.startswith("! "):
            questions.append(FilmQuestion(row[2:]))
        else:
            end = at + max(1.5, len(row.split()) / _WORDS_A_SECOND)
            lines.append(FilmLine(row, round(at, 2), round(end, 2), "subtitle"))
            at = end + _PAUSE_S
            if slide and row == rows[-1]:
                at += 1.0
    return QuotedFilm(name.replace(" ", "_"), tuple(lines), tuple(questions))


def _stamp(seconds: float) -> str:
    whole, rest = divmod(round(1000 * seconds), 1000)
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d},{rest:03d}"


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    try:
        return ImageFont.truetype("DejaVuSans.ttf", size)
    except OSError:
        return ImageFont.load_default(size)
