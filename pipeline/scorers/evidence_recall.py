"""How much of what the right answer rests on was read, and how much of it is cited."""

from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

from pipeline.scorers.schema import AnsweredQuestion, Score, each
from pipeline.scorers.spans import Span, common, length, overlap


class EvidenceRecall:
    """Share of the seconds of the evidence that the model read, and that its answer cites.

    What is recalled says how good the search is; what is cited, what a viewer is shown. As in
    ReKV's retrieval recall (arXiv 2503.00540), without rounding to whole seconds.
    """

    best: ClassVar[Mapping[str, float]] = {"recalled": 1.0, "cited": 1.0}

    def __call__(self, questions: Sequence[AnsweredQuestion]) -> list[Score]:
        return each(questions, _numbers)


def _numbers(question: AnsweredQuestion) -> dict[str, float]:
    if not question.evidence:
        return {}
    return {
        "recalled": coverage(question.evidence, question.recalled),
        "cited": coverage(question.evidence, question.cited),
    }


def coverage(evidence: Iterable[Span], spans: Sequence[Span]) -> float:
    """Share of the seconds of the evidence inside the spans. Evidence without length, of moments
    alone, is covered moment by moment."""
    evidence = list(evidence)
    whole = length(evidence)
    if whole:
        return common(evidence, spans) / whole
    inside = [any(overlap(moment, span) for span in spans) for moment in evidence]
    return sum(inside) / len(inside)
