"""How high a search ranks the moments that a query means."""

from collections.abc import Sequence

from encoders.errors import UserError
from pipeline.scorers.schema import AnsweredQuestion, Score, each
from pipeline.scorers.spans import Span, iou, overlap


class MomentRanking:
    """Recall and average precision of ranked moments (action=retrieve).

    recall_at_K: 1 where one of the first K moments is a moment of the evidence. ap_at_N: as in
    MomentSeeker's code (arXiv 2502.12558), with the evidence as one stretch from its first to its
    last second: the sum over the first N moments of their IoU times the mean IoU so far. It is not
    normalised. Its mean over queries is mAP@N.
    """

    def __init__(self, *, at: list[int], precision_at: int, overlap: float) -> None:
        """at: the K. precision_at: the N. overlap: IoU from which a moment is that of the evidence;
        1: the very same, for rows whose candidates are ranked. 0: any shared time, for a viewer who
        jumps to it."""
        if not at or min([*at, precision_at]) < 1:
            raise UserError(f"at={at} and precision_at={precision_at} must be ranks from 1 on")
        if not 0 <= overlap <= 1:
            raise UserError(f"overlap={overlap} is no share; set it from 0 to 1")
        self._at, self._precision_at, self._overlap = tuple(at), precision_at, overlap
        self.best = {f"recall_at_{rank}": 1.0 for rank in at} | {f"ap_at_{precision_at}": 1.0}

    def __call__(self, questions: Sequence[AnsweredQuestion]) -> list[Score]:
        return each(questions, self._numbers)

    def _numbers(self, question: AnsweredQuestion) -> dict[str, float]:
        if not question.evidence or question.found is None:
            return {}
        hits = [
            any(self._is_hit(one, right) for right in question.evidence) for one in question.found
        ]
        hull = (min(a for a, _ in question.evidence), max(b for _, b in question.evidence))
        precision = total = 0.0
        for rank, one in enumerate(question.found[: self._precision_at], start=1):
            value = 0.0 if one is None else iou([one], [hull])
            total += value
            precision += total / rank * value
        recalls = {f"recall_at_{rank}": float(any(hits[:rank])) for rank in self._at}
        return recalls | {f"ap_at_{self._precision_at}": precision}

    def _is_hit(self, one: Span | None, right: Span) -> bool:
        if one is None:  # of another video
            return False
        if not self._overlap:
            return overlap(one, right)
        return iou([one], [right]) >= self._overlap - 1e-9
