"""Precision and recall of citations, against the seconds that the right answer rests on.

After L-CiteEval (arXiv 2410.02115), where a citation is a numbered piece of text and a model says
whether it supports a statement. Here a citation is a span of video, and it supports the answer if
it meets the evidence of the question.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from encoders.errors import UserError
from pipeline.scorers.schema import AnsweredQuestion, Score, each
from pipeline.scorers.spans import Span, common, length, overlap

_UNITS = ("spans", "seconds")


class CitationF1:
    """Precision, recall and F1 of the cited spans. For questions with evidence.

    An answer that cites nothing scores 0 in all three, as in L-CiteEval.
    """

    best: ClassVar[Mapping[str, float]] = {"precision": 1.0, "recall": 1.0, "f1": 1.0}

    def __init__(self, *, unit: str) -> None:
        """unit: "spans": precision is the share of cited spans that overlap the evidence, and
        recall the share of evidence spans that a cited span overlaps; one long span can be right
        in both. "seconds": shares of seconds, where citing too much costs precision."""
        if unit not in _UNITS:
            raise UserError(f"unit={unit} of citations is not known; use {' or '.join(_UNITS)}")
        self._in_seconds = unit == "seconds"

    def __call__(self, questions: Sequence[AnsweredQuestion]) -> list[Score]:
        return each(questions, self._numbers)

    def _numbers(self, question: AnsweredQuestion) -> dict[str, float]:
        if not question.evidence:
            return {}
        if self._in_seconds:
            shared = common(question.cited, question.evidence)
            own, whole = length(question.cited), length(question.evidence)
            precision, recall = (shared / one if one else 0.0 for one in (own, whole))
        else:
            precision = share_of(support(question.cited, question.evidence))
            recall = share_of(support(question.evidence, question.cited))
        return figures(precision, recall)


def support(spans: Sequence[Span], others: Sequence[Span]) -> tuple[bool, ...]:
    """For each span, whether it overlaps one of the others."""
    return tuple(any(overlap(span, other) for other in others) for span in spans)


def share_of(outcomes: Sequence[bool]) -> float:
    """Share of true outcomes; 0 without any."""
    return sum(outcomes) / len(outcomes) if outcomes else 0.0


def figures(precision: float, recall: float) -> dict[str, float]:
    """Precision, recall, and their harmonic mean."""
    mean = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return {"precision": precision, "recall": recall, "f1": mean}
