"""No video at all: what the question and its options give away."""

from dataclasses import replace
from typing import TYPE_CHECKING

from memory.retrieval.common import hits
from memory.schema import Evidence, Question
from pipeline.answer.strategies.call_log import CallLog, trace_of
from pipeline.answer.strategies.schema import AnswerStrategy, Turn
from pipeline.controls.schema import Showing, Spans
from pipeline.runtime.stage_timer import StageTimer
from pipeline.schema import Answer

if TYPE_CHECKING:
    from pipeline.answer.answerer import Answerer


class Blind:
    """Reads the question alone: no frame, and no line of text."""

    name = "blind"
    showing: Showing = ""
    most_tokens: int | None = None

    def strategy(self, clue: Spans, own: AnswerStrategy) -> AnswerStrategy | None:
        return self

    def answer(self, question: Question, answerer: "Answerer", turn: Turn) -> Answer:
        """The answer of the model to the bare question."""
        timer = StageTimer()
        log = CallLog(answerer.reader, answerer.batched_reader, turn.cancelled)
        interval = answerer.bank.catalog.require_video(question.video_id).interval
        nothing = Evidence(question, (), hits([], []), 0, interval)
        reading = log.read_with(turn.read, "answer", nothing, timer, turn.emit)
        seconds = timer.seconds | {"total": timer.total()}
        answer = answerer.answer(nothing, reading, seconds)
        trace = trace_of(self.name, "the control blind reads no frame", answer, log.calls)
        return replace(answer, trace=trace)
