"""Whether an open answer is one of the right answers."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from encoders.errors import UserError
from pipeline.scorers.schema import AnsweredQuestion, Score, each
from pipeline.scorers.token_f1 import normalize

_NORMALIZATIONS = ("plain", "squad")


class Exact:
    """1 if an open answer equals one of the right ones, else 0."""

    best: ClassVar[Mapping[str, float]] = {"exact": 1.0}

    def __init__(self, *, normalization: str) -> None:
        """normalization: "plain", up to case and a full stop, or the digits where the row says
        rule=number; "squad", also up to punctuation and English articles (arXiv 1606.05250)."""
        if normalization not in _NORMALIZATIONS:
            raise UserError(
                f"score.exact.normalization={normalization} is not known; use plain or squad"
            )
        self._is_squad = normalization == "squad"

    def __call__(self, questions: Sequence[AnsweredQuestion]) -> list[Score]:
        return each(questions, self._numbers)

    def _numbers(self, question: AnsweredQuestion) -> dict[str, float]:
        if question.options or question.right is None:
            return {}
        if self._is_squad and not question.rule:
            answer = normalize(question.answer)
            return {"exact": float(answer in map(normalize, question.references))}
        return {"exact": float(question.right)}
