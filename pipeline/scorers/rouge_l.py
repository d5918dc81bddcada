"""The longest common subsequence of words, ROUGE-L (Lin 2004, "ROUGE: A Package for Automatic
Evaluation of Summaries")."""

import re
from collections.abc import Mapping, Sequence
from typing import ClassVar

from pipeline.scorers.schema import AnsweredQuestion, Score, each
from pipeline.scorers.token_f1 import f1

# Runs of letters and digits. On ASCII, the words of the package rouge-score without a stemmer,
# which takes letters of other scripts for spaces.
_WORD = re.compile(r"[^\W_]+")


class RougeL:
    """F of the longest common subsequence, over the right answer that fits best.

    precision = LCS / words of the answer; recall = LCS / words of the reference; their harmonic
    mean. The order of the words counts, gaps do not.
    """

    best: ClassVar[Mapping[str, float]] = {"rouge_l": 1.0}

    def __call__(self, questions: Sequence[AnsweredQuestion]) -> list[Score]:
        return each(questions, _numbers)


def _numbers(question: AnsweredQuestion) -> dict[str, float]:
    if question.options or not question.references:
        return {}
    return {"rouge_l": max(rouge_l(question.answer, one) for one in question.references)}


def rouge_l(answer: str, reference: str) -> float:
    """0 to 1; 0 where a side has no words."""
    own, theirs = _WORD.findall(answer.lower()), _WORD.findall(reference.lower())
    return f1(_common_subsequence(own, theirs), len(own), len(theirs))


def _common_subsequence(one: Sequence[str], other: Sequence[str]) -> int:
    """Length of the longest common subsequence, in len(one) * len(other) steps."""
    row = [0] * (len(other) + 1)
    for word in one:
        diagonal = 0
        for place, theirs in enumerate(other, start=1):
            above = row[place]
            row[place] = diagonal + 1 if word == theirs else max(above, row[place - 1])
            diagonal = above
    return row[-1]
