"""Notes of a chain in the bank: where the next question about a stream goes on.

A note after every block of segments is kept beside the findings (memory/text/findings.py). It holds
for the segments up to there, the question, and the model; one that does not fit is made again. It
is a cache, so a stream that is taken up again, or a new process, reads only what came since. Knows
no model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from encoders.text.lines import FINDING, TextLine, split_line
from memory.schema import Question
from memory.storage.catalog import SegmentRow
from memory.text.findings import BLOCK_SEGMENTS
from pipeline.answer.strategies.mapping.finding_key import finding_key
from pipeline.answer.strategies.segment_slices import SegmentSlice, is_whole

if TYPE_CHECKING:
    from pipeline.answer.answerer import Answerer

RESTS = 64  # segments that a kept note names: the newest that added something


@dataclass(frozen=True, slots=True)
class Note:
    """What is carried on."""

    text: str = ""  # "": nothing yet
    segments: tuple[int, ...] = ()  # numbers of those that added to it, rising
    read: int = 0  # segments that it covers, of those that the question sees


@dataclass(frozen=True)
class NoteStore:
    """The notes of one question about one video."""

    answerer: "Answerer"
    question: Question
    rows: Sequence[SegmentRow]  # that the question sees, in time order
    settings: str  # of the strategy

    def newest(self) -> Note:
        """The note that covers most; an empty one where there is none."""
        for count in reversed(self._ends):
            found = self.answerer.bank.findings.read(
                self.question.video_id, self._made_with, self._number(count), self.rows[:count]
            )
            if found is not None:
                text = " ".join(line.text for line in found)
                return Note(text, found[0].parents if found else (), count)
        return Note()

    def covers(self, note: Note, segment: int) -> bool:
        """Whether a note was written behind a segment."""
        return note.read > 0 and segment <= self.rows[note.read - 1].number

    def slices(self, note: Note) -> list[SegmentSlice]:
        """The segments that a note rests on."""
        return [
            SegmentSlice(row.video_id, row.number, float(row.times[0]), float(row.times[-1]))
            for row in self.rows[: note.read]
            if row.number in note.segments
        ]

    def keep(self, note: Note) -> None:
        """Keep a note that ends a block."""
        if note.read not in self._ends:
            return
        rows = self.rows[: note.read]
        line = TextLine(
            self.question.video_id, rows[0].start, rows[-1].end, FINDING, note.text, rows[-1].end,
            parents=note.segments[-RESTS:],
        )  # fmt: skip
        self.answerer.bank.findings.write(
            self.question.video_id,
            self._made_with,
            self._number(note.read),
            rows,
            [*split_line(line)],
        )

    @cached_property
    def _ends(self) -> list[int]:
        """How many segments there are up to the end of each block that is complete and seen."""
        catalog, video_id = self.answerer.bank.catalog, self.question.video_id
        interval = catalog.require_video(video_id).interval
        ends = []
        for place, row in enumerate(self.rows):
            if not is_whole(row, self.question, interval):
                break
            if (row.number + 1) % BLOCK_SEGMENTS == 0:
                ends.append(place + 1)
        return ends

    def _number(self, count: int) -> int:
        """The number of the block that ends with so many segments."""
        return self.rows[count - 1].number // BLOCK_SEGMENTS

    @property
    def _made_with(self) -> str:
        """All that a note depends on beside its segments."""
        first = self.rows[0].number if self.rows else 0
        asked = f"{self.question.context!r} {self.question.search_text!r}"
        return finding_key(self.answerer, "Chain 3", self.settings, f"from={first}", asked)
