"""The role of an answer strategy. Knows no implementation."""

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from encoders.errors import UserError
from memory.schema import Question
from pipeline.runtime.cancel import Emit
from pipeline.schema import Answer

if TYPE_CHECKING:
    from pipeline.answer.answerer import Answerer, Read


def _drop(text: str) -> None:
    pass


MOST_WHOLE = 64  # videos of which a strategy reads everything anew for each question


def refuse_more(question: Question, strategy: str) -> None:
    """UserError for more videos than a strategy takes that reads all of each."""
    if len(question.videos) > MOST_WHOLE:
        raise UserError(
            f"answer={strategy} reads all of at most {MOST_WHOLE} videos, and these are "
            f"{len(question.videos)}; name fewer, or use answer=retrieve or answer=map_reduce."
        )


def film_by_film(question: Question) -> str:
    """For a trace: the order in which lines or segments of several videos are read; "" for one."""
    return ", one film after another" if len(question.videos) > 1 else ""


@dataclass(frozen=True, slots=True)
class Turn:
    """How one question is answered, beside the question itself."""

    emit: Emit = _drop  # gets the text in pieces; joined, they are the answer's text
    # once it is set, the answer ends between two passes of the model, and Cancelled is raised
    cancelled: threading.Event | None = None
    # in place of the reader where the answer is chosen among options
    read: "Read | None" = None


class AnswerStrategy(Protocol):
    """A way to answer a question about a video, or about several, from the bank.

    What it reads is bounded by the answerer's budgets in every pass of the model, and nothing of it
    lies after the question's moment. The answer carries a trace whose calls add up to its tokens.
    """

    name: str  # as in conf/answer/

    def answer(self, question: Question, answerer: "Answerer", turn: Turn) -> Answer:
        """The answer. `answerer` has the bank, the readers, and the budgets. Raises UserError where
        this strategy cannot answer, and Cancelled."""
        ...
