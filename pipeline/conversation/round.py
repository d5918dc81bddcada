"""A round of a conversation: a question with its complete answer."""

from collections.abc import Sequence
from dataclasses import dataclass

from memory.schema import FrameName
from pipeline.schema import Answer


@dataclass(frozen=True, slots=True)
class Round:
    """A question with a complete answer, as far as the history needs it."""

    text: str  # the question that the model read
    answer: str
    spans: tuple[tuple[float, float], ...]  # seconds that the answer cites
    frames: tuple[FrameName, ...]  # that the answer cites, heaviest first

    @classmethod
    def of(cls, answer: Answer) -> "Round":
        return cls(
            answer.question,
            answer.text,
            answer.spans,
            tuple(FrameName(frame.video_id, frame.ordinal) for frame in answer.cited),
        )


def context_text(rounds: Sequence[Round]) -> str:
    """Earlier rounds as text for the model."""
    return "\n".join(f"Earlier question: {each.text}\nAnswer: {each.answer}" for each in rounds)
