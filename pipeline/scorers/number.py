"""How near a number in an open answer is: mean relative accuracy (VSI-Bench, arXiv 2412.14171)."""

import re
from collections.abc import Mapping, Sequence
from typing import ClassVar

from encoders.errors import UserError
from pipeline.scorers.schema import NUMBER, AnsweredQuestion, Score, each

_THRESHOLDS = tuple(number / 100 for number in range(50, 100, 5))  # 0.50, 0.55, ... 0.95
_NUMBER = re.compile(r"[-+]?(?:\d+(?:,\d{3})+|\d+)(?:\.\d+)?|[-+]?\.\d+")
_EPS = 1e-9  # 1 - 0.9 is a little less than 0.1


class RelativeAccuracy:
    """Mean over the thresholds t = 0.50, 0.55 ... 0.95 of [relative error <= 1 - t].

    For rows with rule=number. The first number in the answer counts; an answer without one scores
    0. The relative error is |number - reference| / |reference|; where the reference is 0, the
    number is right or wrong.
    """

    best: ClassVar[Mapping[str, float]] = {"number": 1.0}

    def __call__(self, questions: Sequence[AnsweredQuestion]) -> list[Score]:
        return each(questions, _numbers)


def _numbers(question: AnsweredQuestion) -> dict[str, float]:
    if question.options or question.rule != NUMBER or not question.references:
        return {}
    references = [_first_number(one) for one in question.references]
    known = [one for one in references if one is not None]
    if len(known) < len(references):
        raise UserError(
            f"{question.id}: the answers {list(question.references)} are not all numbers; leave "
            "rule=number out"
        )
    number = _first_number(question.answer)
    if number is None:
        return {"number": 0.0}
    return {"number": max(relative_accuracy(number, one) for one in known)}


def relative_accuracy(number: float, reference: float) -> float:
    """0 to 1."""
    if reference == 0:
        return float(number == 0)
    error = abs(number - reference) / abs(reference)
    return sum(error <= 1 - one + _EPS for one in _THRESHOLDS) / len(_THRESHOLDS)


def _first_number(text: str) -> float | None:
    match = _NUMBER.search(text)
    return None if match is None else float(match[0].replace(",", ""))
