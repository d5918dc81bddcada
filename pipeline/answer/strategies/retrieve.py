"""The default: the frames that the retriever ranks first are read in one pass."""

from typing import TYPE_CHECKING

from memory.schema import Question
from pipeline.answer.strategies.schema import Turn
from pipeline.schema import Answer

if TYPE_CHECKING:
    from pipeline.answer.answerer import Answerer


class Retrieve:
    """Recalls what fits the question, and reads it once."""

    name = "retrieve"

    def answer(self, question: Question, answerer: "Answerer", turn: Turn) -> Answer:
        """The answer from `read_tokens` of visual tokens."""
        return answerer.retrieve(question, turn.emit, turn.read, cancelled=turn.cancelled)
