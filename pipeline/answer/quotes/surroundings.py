"""The lines around a line in the same channel, and how far a quotation of it reaches. Knows the
bank's lines; no question and no model."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from encoders.text.lines import TextLine
from memory.bank import MemoryBank
from memory.text.bm25 import LineFilter
from pipeline.answer.quotes.answer_type import Matches
from pipeline.answer.quotes.print_block import block_of

_NEAR_S = 8.0  # pause after which a line is no neighbor
_JOINED_S = 1.5  # pause within a sentence
_PART_LINES = 2  # that a sentence may go on for, on each side
_NEIGHBOR_GAIN = 0.05  # cosine that a neighbor must add to be quoted

LineName = tuple[str, float, str, str]
# cosine with the question: of the line, of it and the line before, of it and the line after
Cosines = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What stands around the lines of a film that a question may see."""

    bank: MemoryBank
    limits: LineFilter

    def neighbors(self, line: TextLine) -> tuple[TextLine | None, TextLine | None]:
        """The line before and the line after, where there are such."""
        around = self._around(line)
        at = around.index(line)
        before = around[at - 1] if at else None
        after = around[at + 1] if at + 1 < len(around) else None
        if before is not None and line.start - before.end > _NEAR_S:
            before = None
        if after is not None and after.start - line.end > _NEAR_S:
            after = None
        return before, after

    def stretch(
        self, line: TextLine, expected: Matches | None, cosines: Cosines = (0.0, 0.0, 0.0)
    ) -> tuple[TextLine, ...]:
        """The line, the rest of its sentence, and the neighbor that answers with it.

        cosines: 0 where no encoder compared the neighbors.
        """
        around = self._around(line)
        before, after = self.neighbors(line)
        if line.kind == "ocr":  # rows that follow in time may be of different slides
            lines = _sentence(block_of(line, around), line)
        else:
            lines = _sentence(around, line)
        alone, with_before, with_after = cosines
        options = [
            (with_after, [*lines, after] if after and len(lines) == 1 else None),
            (with_before, [before, *lines] if before and len(lines) == 1 else None),
        ]
        lacks = expected is not None and not expected(joined(lines))
        for cosine, longer in sorted(options, key=lambda option: -option[0]):
            if longer is None:
                continue
            answers = expected is not None and expected(joined(longer))
            if (lacks and answers) or (not lacks and cosine > alone + _NEIGHBOR_GAIN):
                return tuple(longer)
        return tuple(lines)

    def _around(self, line: TextLine) -> list[TextLine]:
        """The lines of the same channel near this one, itself included, in time order."""
        limits = self.limits
        reach = _NEAR_S * (_PART_LINES + 1)
        moment, (start, end) = limits.moment(line.video_id), limits.span(line.video_id)
        near = self.bank.text.during(line.video_id, line.start - reach, line.end + reach)
        lines = [
            replace(one, end=min(one.end, moment))
            for one in near
            if one.kind == line.kind
            and one.known <= moment
            and one.start < end
            and one.end > start
            and name(one) != name(line)
        ]
        return sorted([*lines, line], key=lambda one: (one.start, *_top_left(one), one.end))


def joined(lines: Sequence[TextLine]) -> str:
    """Their text as one."""
    return " ".join(line.text for line in lines)


def name(line: TextLine) -> LineName:
    """What tells a line from all others."""
    return line.video_id, line.start, line.kind, line.text


def _top_left(line: TextLine) -> tuple[float, float]:
    """Of print; rows that begin together are read from top to bottom."""
    return (0.0, 0.0) if line.box is None else (line.box[1], line.box[0])


def _sentence(lines: Sequence[TextLine], line: TextLine) -> list[TextLine]:
    """The line and the rest of its sentence, among lines in reading order."""
    at = lines.index(line)
    return list(lines[_sentence_start(lines, at) : _sentence_end(lines, at) + 1])


def _sentence_start(lines: Sequence[TextLine], at: int) -> int:
    """Index of the line in which the sentence of line `at` begins; `at` where that is not clear."""
    for first in range(at, max(at - _PART_LINES, 0) - 1, -1):
        if not lines[first].text[:1].islower():
            return first
        if first and lines[first].start - lines[first - 1].end > _JOINED_S:
            break
    return at


def _sentence_end(lines: Sequence[TextLine], at: int) -> int:
    """Index of the line in which the sentence of line `at` ends; `at` where that is not clear."""
    for last in range(at, min(at + _PART_LINES + 1, len(lines))):
        if lines[last].text.rstrip("\"'\u201d\u2019)]")[-1:] in ".!?\u2026":
            return last
        if last + 1 < len(lines) and lines[last + 1].start - lines[last].end > _JOINED_S:
            break
    return at
