"""Questions about a whole film of cards -> questions about one stretch of it, in the words that the
embedded model was trained on.

Imports only the templates. Knows no model, no film and no answer: it sees the text of the question
alone.
"""

import re
from dataclasses import dataclass

from pipeline.needle_world.cards import SHAPES
from pipeline.needle_world.questions import (
    CODE,
    COLOR,
    ICON,
    NAME,
    SHAPE,
    is_about_cards,
    plural,
)

# words that name what a card has, and the question about one stretch
_THINGS = (
    ({"code", "codes"}, CODE[1]),
    ({"name", "names", "secret"}, NAME[1]),
    ({"icon", "icons"}, ICON[0]),
)
_MOST = ("most often", "most frequently", "most frequent", "more often than")


@dataclass(frozen=True, slots=True)
class SegmentQuestion:
    """What is asked of each segment."""

    # what the question stands for; "": the answers themselves are counted or put in order
    item: str
    text: str
    # what is asked where a segment shows something, with {answer}, and the answer that confirms
    # it; "": nothing is. Asked for the colour of a star, the model sometimes names that of a heart
    check: str = ""
    expected: str = ""


@dataclass(frozen=True, slots=True)
class SegmentQuestions:
    """What is asked of each segment, and what becomes of the answers."""

    # "count", "order" (of all that is found), "order_of" (of the items), "most_frequent", "union"
    aim: str
    questions: tuple["SegmentQuestion", ...]


def segment_questions(question: str) -> SegmentQuestions | None:
    """The questions about segments; None where a question is not about cards."""
    text = question.lower()
    words = set(re.findall(r"[^\W\d_]+", text))
    most = any(phrase in text for phrase in _MOST)
    if not most and not is_about_cards(question):
        return None
    shapes = [shape for shape in SHAPES if words & {shape, plural(shape)}]
    shapes.sort(key=lambda shape: text.index(shape))
    of_shapes = tuple(
        SegmentQuestion(
            shape, COLOR[0].format(shape=shape), SHAPE[0].format(color="{answer}"), shape
        )
        for shape in shapes
    )
    of_thing = tuple(SegmentQuestion("", asked) for own, asked in _THINGS if words & own)[:1]
    if most:
        return SegmentQuestions("most_frequent", of_thing) if of_thing else None
    if "order" in words:
        if of_shapes:
            return SegmentQuestions("order_of", of_shapes)
        return SegmentQuestions("order", of_thing) if of_thing else None
    if {"how", "many"} <= words:
        counted = of_shapes[:1] or of_thing
        return SegmentQuestions("count", counted) if counted else None
    return SegmentQuestions("union", (SegmentQuestion("", question),))
