"""Whether the right option was chosen."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from pipeline.scorers.schema import AnsweredQuestion, Score, each


class Choice:
    """1 if the answer chose the right option, else 0. An answer that chose none is wrong."""

    best: ClassVar[Mapping[str, float]] = {"choice": 1.0}

    def __call__(self, questions: Sequence[AnsweredQuestion]) -> list[Score]:
        return each(questions, _numbers)


def _numbers(question: AnsweredQuestion) -> dict[str, float]:
    if not question.options or question.right is None:
        return {}
    return {"choice": float(question.right)}
