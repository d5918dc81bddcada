"""How well spans fit the seconds that the right answer rests on: intersection over union."""

from collections.abc import Sequence

from encoders.errors import UserError
from pipeline.scorers.schema import AnsweredQuestion, Score, each
from pipeline.scorers.spans import iou

_PICKS = ("all", "best", "recalled")


class TemporalIoU:
    """Intersection over union in seconds, its mean and the share of answers at each threshold.

    For questions with evidence. An answer that cites nothing scores 0.
    """

    def __init__(self, *, pick: str, thresholds: list[float]) -> None:
        """pick: "all" cited spans as one set against the evidence as one set (CG-Bench, arXiv
        2412.12075); "best": the cited span with the heaviest frame against the part of the
        evidence that fits it best, so that a threshold gives R@1 of temporal grounding
        (Charades-STA, arXiv 1705.02101); "recalled": all that the model read, as one set.

        thresholds: from 0 to 1; each gives 1 where the IoU is at least that, else 0.
        """
        if pick not in _PICKS:
            raise UserError(f"pick={pick} of an IoU is not known; use {', '.join(_PICKS)}")
        bad = [one for one in thresholds if not 0 < one <= 1]
        if bad:
            raise UserError(f"thresholds={bad} of an IoU are no shares; use such as [0.3,0.5,0.7]")
        self._pick, self._thresholds = pick, tuple(thresholds)
        self.best = {"mean": 1.0} | {f"at_{one:g}": 1.0 for one in thresholds}

    def __call__(self, questions: Sequence[AnsweredQuestion]) -> list[Score]:
        return each(questions, self._numbers)

    def _numbers(self, question: AnsweredQuestion) -> dict[str, float]:
        if not question.evidence:
            return {}
        if self._pick == "best":
            own = [] if question.best is None else [question.best]
            value = max(iou(own, [one]) for one in question.evidence)
        else:
            own = list(question.cited if self._pick == "all" else question.recalled)
            value = iou(own, question.evidence)
        return {"mean": value} | {f"at_{one:g}": float(value >= one) for one in self._thresholds}
