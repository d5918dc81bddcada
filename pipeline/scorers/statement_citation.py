"""Citations statement by statement, as LongCite scores them (arXiv 2409.02897).

There a model says whether the cited pieces of text support the statement before them. Here a
statement is supported if one of its own spans meets the evidence of the question.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from pipeline.schema import Basis
from pipeline.scorers.citation_f1 import figures, share_of, support
from pipeline.scorers.schema import AnsweredQuestion, Score, each


class StatementCitation:
    """Precision, recall and F1 over the statements of an answer. For questions with evidence.

    recall = supported statements / statements; a statement that cites nothing is not supported.
    precision = citations that meet the evidence / citations of all statements. An answer whose
    statements are not known (Answer.trace has no basis) is one statement.
    """

    best: ClassVar[Mapping[str, float]] = {"precision": 1.0, "recall": 1.0, "f1": 1.0}

    def __call__(self, questions: Sequence[AnsweredQuestion]) -> list[Score]:
        return each(questions, _numbers)


def _numbers(question: AnsweredQuestion) -> dict[str, float]:
    if not question.evidence:
        return {}
    statements = question.basis or (Basis(question.answer, question.cited),)
    outcomes = [support(one.spans, question.evidence) for one in statements]
    precision = share_of([is_right for own in outcomes for is_right in own])
    return figures(precision, recall=share_of([any(own) for own in outcomes]))
