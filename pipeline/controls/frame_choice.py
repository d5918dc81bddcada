"""Answers from frames that a rule chooses, and from no other: the common part of most controls.

The frames are named by stretches of the question, so the bank, the prompt, the reader and the
citations are those of `answer=retrieve`. Lines of text are read where they show with these frames.
Knows the catalog; no retriever.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from encoders.errors import UserError
from memory.schema import Question
from memory.timeline import Span
from pipeline.answer.strategies.schema import AnswerStrategy, Turn
from pipeline.answer.strategies.segment_slices import frame_cost, visible_segments
from pipeline.controls.schema import Showing, Spans
from pipeline.schema import Answer

if TYPE_CHECKING:
    from pipeline.answer.answerer import Answerer


@dataclass(frozen=True, slots=True)
class StoredFrame:
    """A frame that a control may choose."""

    time: float  # seconds
    cost: int  # what it takes of `read_tokens`


class FrameChoice(ABC):
    """A control that is its own strategy: it chooses the frames."""

    name: str
    showing: Showing = "film"
    most_tokens: int | None = None

    def strategy(self, clue: Spans, own: AnswerStrategy) -> AnswerStrategy | None:
        return self

    @abstractmethod
    def choose(
        self, frames: Sequence[StoredFrame], interval: float, budget: int
    ) -> Sequence[StoredFrame]:
        """The frames to read, in time order.

        frames: that the question sees, in time order, at least one. interval: seconds between
        frames. budget: of the configuration, in the unit of `cost`.
        """

    def answer(self, question: Question, answerer: "Answerer", turn: Turn) -> Answer:
        """The answer from the chosen frames. UserError where the question sees no frame."""
        limited = answerer.timed(question).question
        interval = answerer.bank.catalog.require_video(question.video_id).interval
        frames = stored_frames(limited, answerer)
        if not frames:
            answerer.refuse_unseen(limited)
            raise UserError("Nothing of this video is stored yet; ask when it is encoded.")
        chosen = self.choose(frames, interval, answerer.read_tokens)
        cost = sum(frame.cost for frame in chosen)
        spans = {question.video_id: spans_of(chosen, interval)}
        answer = replace(answerer, read_tokens=max(cost, 1)).retrieve(
            replace(question, spans=spans), turn.emit, turn.read, cancelled=turn.cancelled
        )
        if answer.trace is None:
            return answer
        why = f"the control {self.name} chooses {len(chosen)} of {len(frames)} frames"
        return replace(answer, trace=replace(answer.trace, strategy=self.name, why=why))


def stored_frames(question: Question, answerer: "Answerer") -> list[StoredFrame]:
    """The frames of the one video that a question sees, in time order."""
    video_id = question.video_id
    interval = answerer.bank.catalog.require_video(video_id).interval
    return [
        StoredFrame(time, cost)
        for row in visible_segments(answerer.bank, question, video_id)
        for time, cost in zip(row.times.tolist(), frame_cost(answerer, row), strict=True)
        if question.sees(video_id, time, interval)
    ]


def spans_of(frames: Sequence[StoredFrame], interval: float) -> tuple[Span, ...]:
    """Stretches that hold these frames and none between them.

    A stretch holds what is shown in it. So it lies in the second half of each frame's own time,
    where no neighbour shows even if the times of a file are not quite even.
    """
    return tuple((frame.time + 0.5 * interval, frame.time + 0.6 * interval) for frame in frames)
