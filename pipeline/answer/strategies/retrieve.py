"""The default: the frames that the retriever ranks first are read in one pass.

A question about the present state ("what is the code now?") goes to the newest moment that answers:
values that it overrides may rank as high.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

from memory.schema import Question
from pipeline.answer.strategies.mapping.map_plan import map_plan
from pipeline.answer.strategies.schema import Turn
from pipeline.answer.strategies.streams.latest import Latest
from pipeline.query.time_limits import TimedQuestion
from pipeline.schema import Answer

if TYPE_CHECKING:
    from pipeline.answer.answerer import Answerer


class Retrieve:
    """Recalls what fits the question, and reads it once."""

    name = "retrieve"

    def answer(self, question: Question, answerer: "Answerer", turn: Turn) -> Answer:
        """The answer from `read_tokens` of visual tokens."""
        timed = answerer.timed(question)
        if not asks_for_newest(timed, only_cards=answerer.only_cards):
            return answerer.retrieve(question, turn.emit, turn.read, cancelled=turn.cancelled)
        answer = Latest().answer(question, answerer, turn)
        if answer.trace is None or answer.trace.strategy != Latest.name:
            return answer
        why = f"the question asks for the present state; {answer.trace.why}"
        return replace(answer, trace=replace(answer.trace, why=why))


def asks_for_newest(timed: TimedQuestion, *, only_cards: bool) -> bool:
    """Whether a question asks for one present value, and not for a count or an order of many."""
    if not timed.is_present:
        return False
    plan = map_plan(timed.question.search_text, only_cards=only_cards, reduce="auto")
    return plan is None or plan.aim in ("model", "union")
