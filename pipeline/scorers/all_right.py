"""Questions that only count as right together: groups, and pairs of claims."""

from collections.abc import Sequence

from encoders.errors import UserError
from pipeline.scorers.schema import AnsweredQuestion, Score

_COLUMNS = ("group", "pair")


class AllRight:
    """1 if every question of a group is right, else 0. The number stands at its first question.

    A pair is a group of two: a true claim and a false one (MF2, arXiv 2506.06275). Without an
    answer key for all of its questions, a group has no number.
    """

    def __init__(self, *, by: str) -> None:
        """by: the column that names the group: "group", or "pair" for exactly two rows."""
        if by not in _COLUMNS:
            raise UserError(f"by={by} of a score is not known; use {' or '.join(_COLUMNS)}")
        self._by = by
        self.best = {by: 1.0}

    def __call__(self, questions: Sequence[AnsweredQuestion]) -> list[Score]:
        groups: dict[str, list[int]] = {}
        for place, question in enumerate(questions):
            if name := getattr(question, self._by):
                groups.setdefault(name, []).append(place)
        scores = [Score()] * len(questions)
        for name, places in groups.items():
            outcomes = [questions[place].right for place in places]
            if self._by == "pair" and len(places) != 2:
                count = len(places)
                scores[places[0]] = Score(
                    error=f"pair {name!r} has {count} answered row{'s' * (count > 1)} instead of 2"
                )
            elif None not in outcomes:
                scores[places[0]] = Score({self._by: float(all(outcomes))})
        return scores
