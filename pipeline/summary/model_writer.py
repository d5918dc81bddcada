"""Sentences of a summary by the model: one of each segment, then one of each chapter from these.

The first ones are findings (pipeline/answer/strategies/mapping/segment_mapper.py): the bank keeps
them, and answer=map_reduce takes them for a question of what a video is about. The bank keeps the
sentences of chapters in the same way, so that a summary goes on where it was interrupted, and a
second one asks nothing. Knows an answerer; no page.
"""

import hashlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from encoders.text.lines import FINDING, TextLine, clean_text
from memory.schema import Question
from pipeline.answer.answerer import Answerer
from pipeline.answer.strategies.call_log import CallLog
from pipeline.answer.strategies.mapping.map_plan import DESCRIBE
from pipeline.answer.strategies.mapping.segment_mapper import SegmentMapper
from pipeline.answer.strategies.mapping.text_levels import grouped, merged, text_context
from pipeline.needle_world.segment_questions import SegmentQuestion
from pipeline.runtime.stage_timer import StageTimer
from pipeline.schema import is_shown
from pipeline.summary.schema import Span

REDUCE = (
    "These lines say what a part of a video shows, and what is said in it. Sum up the part in one "
    "sentence, from these lines alone."
)
_CONTEXTS = 8  # that one pass of the model reads
_LINE_TOKENS = 2048  # text that the model reads at once


@dataclass(frozen=True)
class ModelWriter:
    """Asks the model of an answerer. `log.calls` has every pass."""

    answerer: Answerer
    sees: bool = True  # False: the model takes no pictures, so it reads the words alone
    cancelled: threading.Event | None = None
    log: CallLog = field(init=False)

    def __post_init__(self) -> None:
        own = self.answerer
        log = CallLog(own.reader, own.batched_reader, self.cancelled)
        object.__setattr__(self, "log", log)

    @property
    def model(self) -> str:
        """Its name."""
        return self.answerer.reader.model_name or str(self.answerer.bank.provenance.get("model"))

    def findings(self, video_id: str, span: Span) -> list[TextLine]:
        """What the model says of each segment of a stretch, in time order. Raises Cancelled: what
        was read before is kept."""
        if not self.sees:
            return []
        mapper = SegmentMapper(
            self.answerer, self.log, StageTimer(), contexts=_CONTEXTS, divides=False
        )
        rows = self.answerer.bank.catalog.segments(video_id)
        is_all = span[0] <= rows[0].times[0] and span[1] >= rows[-1].times[-1]
        # the bank keeps what is said of whole segments
        question = Question(DESCRIBE, video_id, spans=None if is_all else {video_id: (span,)})
        return list(mapper.find(question, SegmentQuestion("", DESCRIBE)).lines)

    def sentence(self, video_id: str, span: Span, lines: Sequence[TextLine]) -> TextLine | None:
        """A line of kind FINDING that sums up a stretch, with the segments that it rests on; None
        where the model says nothing.

        lines: findings, and what is said and printed, of this stretch.
        """
        bank = self.answerer.bank
        segments = bank.catalog.overlapping(video_id, start=span[0], end=span[1])
        made_with = self._made_with(span, lines)
        kept = bank.findings.read(video_id, made_with, 0, segments)
        if kept is None:
            numbers = tuple(row.number for row in segments)
            written = self._reduced(video_id, lines)
            kept = () if written is None else (_resting_on(written, numbers),)
            bank.findings.write(video_id, made_with, 0, segments, kept)
        return kept[0] if kept else None

    def _reduced(self, video_id: str, lines: Sequence[TextLine]) -> TextLine | None:
        """Lines that fit one prompt become one line; of more, each group does first."""
        level = [line for line in lines if line.text.strip()]
        while level:
            groups = grouped(level, self.answerer.reader.count_tokens, _LINE_TOKENS)
            contexts = [text_context(Question(REDUCE, video_id), each, REDUCE) for each in groups]
            said: list[TextLine] = []
            for first in range(0, len(groups), _CONTEXTS):
                part = slice(first, first + _CONTEXTS)
                readings = self.log.read_all("reduce", contexts[part], StageTimer())
                for group, reading in zip(groups[part], readings, strict=True):
                    text = clean_text(reading.text)
                    if text and is_shown(text):
                        said.append(merged(group, text))
            # lines that are longer than a prompt would go on for ever
            if len(groups) == 1 or len(said) >= len(level):
                return said[0] if said else None
            level = said
        return None

    def _made_with(self, span: Span, lines: Sequence[TextLine]) -> str:
        """All that the sentence of a chapter depends on."""
        bank, reader = self.answerer.bank.provenance, self.answerer.reader
        model = reader.model_name or f"{bank.get('model')} {bank.get('weights')}"
        words = "\n".join(f"{one.start} {one.end} {one.kind} {one.text}" for one in lines)
        digest = hashlib.sha256(words.encode(errors="replace")).hexdigest()[:16]
        tokens = getattr(reader, "max_new_tokens", "")
        kind = type(reader).__name__
        return f"ModelWriter 1({model}, {kind}, {tokens}, {span}, {digest}, {REDUCE})"


def _resting_on(line: TextLine, segments: tuple[int, ...]) -> TextLine:
    """The line, with all segments of its stretch where its own lines name none."""
    return TextLine(
        line.video_id,
        line.start,
        line.end,
        FINDING,
        line.text,
        line.known,
        parents=line.parents or segments,
    )
