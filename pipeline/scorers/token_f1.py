"""Words that an open answer shares with a right one, as SQuAD counts them (arXiv 1606.05250)."""

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import ClassVar

from pipeline.scorers.schema import AnsweredQuestion, Score, each

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


class TokenF1:
    """F1 of words, over the right answer that fits best.

    precision = shared words / words of the answer; recall = shared words / words of the reference;
    F1 = 2 * precision * recall / (precision + recall). A word counts as often as it stands in both.
    Two texts without words are equal, as in SQuAD 2.0.
    """

    best: ClassVar[Mapping[str, float]] = {"f1": 1.0}

    def __call__(self, questions: Sequence[AnsweredQuestion]) -> list[Score]:
        return each(questions, _numbers)


def _numbers(question: AnsweredQuestion) -> dict[str, float]:
    if question.options or not question.references:
        return {}
    return {"f1": max(token_f1(question.answer, one) for one in question.references)}


def token_f1(answer: str, reference: str) -> float:
    """0 to 1."""
    own, theirs = normalize(answer).split(), normalize(reference).split()
    if not own or not theirs:
        return float(own == theirs)
    return f1(sum((Counter(own) & Counter(theirs)).values()), len(own), len(theirs))


def f1(shared: float, of_answer: float, of_reference: float) -> float:
    """Harmonic mean of shared / of_answer and shared / of_reference; 0 where nothing is shared."""
    return 2 * shared / (of_answer + of_reference) if shared else 0.0


def normalize(text: str) -> str:
    """Lower case, without punctuation and English articles, single spaces: SQuAD's own order."""
    plain = _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION))
    return " ".join(plain.split())
