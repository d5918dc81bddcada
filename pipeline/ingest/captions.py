"""A model's sentences about each segment, stored as text: the `captions` extractor. Every line says
that a model wrote it.

Works from the bank, after the encoder: the reader gets the same prompt about each segment alone.
Later questions search and read the stored lines, and the model is not asked again.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

from encoders.encoder import Timer
from encoders.errors import UserError
from encoders.text.lines import TextLine, TextSpan, VideoFile, split_line
from memory.bank import MemoryBank
from memory.retrieval.common import hits
from memory.schema import Evidence, Question
from pipeline.runtime.stage_timer import StageTimer
from pipeline.schema import Reading, is_shown

SPAN_SEGMENTS = 16  # segments in one span of text


class CaptionReader(Protocol):
    """What captions need of a reader."""

    @property
    def model_name(self) -> str:
        """Of the model; "" = that of the bank."""
        ...

    def read(self, evidence: Evidence, timer: Timer) -> Reading:
        """Answer the question of the evidence."""
        ...


@dataclass(frozen=True)
class Captions:
    """The `captions` extractor; `with_model` gives it the bank and the model.

    prompt: the question about each segment.
    """

    prompt: str = "Describe what can be seen, in one sentence."
    bank: MemoryBank | None = None
    reader: CaptionReader | None = None
    name = "captions"

    def __post_init__(self) -> None:
        if not self.prompt.strip():
            raise UserError(
                'text.captions.prompt is empty; give one, such as "Describe what can be seen."'
            )

    def missing(self) -> str:
        """Always empty: the model is the run's own."""
        return ""

    def with_model(self, bank: MemoryBank, reader: CaptionReader) -> "Captions":
        """The same extractor, ready to work."""
        return replace(self, bank=bank, reader=reader)

    def applies_to(self, video: VideoFile) -> bool:
        """Always: a model says something of every film."""
        return True

    def made_with(self, video: VideoFile) -> str:
        """Model, reader and prompt."""
        assert self.bank is not None and self.reader is not None
        bank, reader = self.bank.provenance, type(self.reader).__name__
        model = self.reader.model_name or f"{bank.get('model')} {bank.get('weights')}"
        return f"Captions({model}, {reader}, prompt={self.prompt!r})"

    def spans(self, video: VideoFile, after: float = 0.0) -> Iterator[TextSpan]:
        """One for every 16 segments. A segment that the model does not recognize ("not in the
        video") gives no line."""
        assert self.bank is not None
        rows = [row for row in self.bank.catalog.segments(video.video_id) if row.end > after]
        if not rows:
            yield TextSpan(after, after, (), True)
            return
        at = after
        for first in range(0, len(rows), SPAN_SEGMENTS):
            part = rows[first : first + SPAN_SEGMENTS]
            lines = [
                piece
                for row in part
                for piece in split_line(self._line(video.video_id, row.number, row.start, row.end))
            ]
            yield TextSpan(at, part[-1].end, tuple(lines), first + SPAN_SEGMENTS >= len(rows))
            at = part[-1].end

    def _line(self, video_id: str, number: int, start: float, end: float) -> TextLine:
        assert self.bank is not None and self.reader is not None
        runs = tuple(self.bank.window.segments(video_id, 1, before=number + 1))
        interval = end - float(runs[-1].tokens.times[-1])
        question = Question(self.prompt, video_id)
        evidence = Evidence(question, runs, hits([], []), recent=0, interval=interval)
        text = self.reader.read(evidence, StageTimer()).text
        return TextLine(video_id, start, end, "caption", text if is_shown(text) else "", end)
