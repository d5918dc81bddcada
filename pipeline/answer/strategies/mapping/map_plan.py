"""What map-reduce asks of each segment of a video, and what it makes of the answers.

Rules over the words of the question. A model of the needle world gets the questions that it was
trained on (pipeline/needle_world/segment_questions.py); any other model gets one instruction. Knows
no video and no model.
"""

import re
from dataclasses import dataclass
from typing import Literal

from pipeline.needle_world.segment_questions import SegmentQuestion, segment_questions
from pipeline.query import plan as planner

# count: how many different things. times: how often. order: all things by their first appearance.
# order_of: the items of the plan by theirs. most_frequent: the thing that appears most often.
# union: every different thing. model: the model answers from all findings
Aim = Literal["count", "times", "order", "order_of", "most_frequent", "union", "model"]

LIST = (
    "Look at this part of a video alone. Name everything in it that belongs to the question "
    '"{question}", in the order in which it appears, separated by commas, and nothing else. '
    "If nothing belongs to it, say: not in the video."
)
NOTE = (
    'Look at this part of a video alone. What does it show that helps to answer "{question}"? Do '
    "not answer the question. Use one or two sentences. If nothing helps, say: not in the video."
)
# for questions of what a video is about, and for summaries (pipeline/summary/model_writer.py)
DESCRIBE = (
    "Look at this part of a video alone. Say in one sentence what it shows and what happens in it."
)
_ABOUT = re.compile(
    r"\bwhat (is|was) (it|this|the (video|film|clip|talk|lecture|recording)) about\b"
    r"|\bsum up\b|\bsummar(y|i[sz]e)\b|^what happens( in (it|this|the (video|film|clip)))?\W*$"
    r"|^describe (it|this|the) ?(video|film|clip)?\W*$",
    re.IGNORECASE,
)
_AIMS: tuple[tuple[Aim, str], ...] = (
    ("times", r"\bhow (many times|often)\b"),
    ("count", r"\bhow many\b|\bthe number of\b"),
    ("most_frequent", r"\bmost (often|frequent(ly)?)\b"),
    ("order", r"\b(what|which) order\b|\border of\b|\bin the order\b"),
    ("union", r"^(list|name) (all|every|each)\b|\bwhich \w+s (are|were|did|appear)"),
)


@dataclass(frozen=True, slots=True)
class MapPlan:
    """The questions about every segment, and the aim of the reduction."""

    aim: Aim
    questions: tuple[SegmentQuestion, ...]
    # True: an answer names one thing, so a segment in which several show is read in stretches
    names_one: bool

    @property
    def uses_rules(self) -> bool:
        """Whether the reduction is one of lists and counts, without a model."""
        return self.aim != "model"


def map_plan(question: str, *, only_cards: bool, reduce: str) -> MapPlan | None:
    """The plan for a question; None where a model of cards cannot be asked.

    only_cards: the model knows the questions of the needle world alone. reduce: "auto" takes rules
    where the question counts, orders or lists; "model" always asks the model.
    """
    text = planner.plan(question).text
    if only_cards:
        cards = segment_questions(text)
        return None if cards is None else MapPlan(_aim(cards.aim), cards.questions, True)
    aim: Aim = "model"
    if reduce == "auto":
        found = (aim for aim, pattern in _AIMS if re.search(pattern, text.lower()))
        aim = next(found, "model")
    if aim == "model" and _ABOUT.search(text):
        return MapPlan(aim, (SegmentQuestion("", DESCRIBE),), False)
    instruction = NOTE if aim == "model" else LIST
    return MapPlan(aim, (SegmentQuestion("", instruction.format(question=text)),), False)


def _aim(word: str) -> Aim:
    aims: tuple[Aim, ...] = ("count", "times", "order", "order_of", "most_frequent", "union")
    return next(aim for aim in aims if aim == word)
