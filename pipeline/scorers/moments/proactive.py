"""Whether answers come when they are due, and whether they are right then."""

from collections.abc import Sequence

from pipeline.scorers.schema import AnsweredQuestion, Score, each


class Proactive:
    """Answers that wait for their moment, as in StreamingBench (arXiv 2411.03628).

    in_time: 1 where the answer came when it was due. right: 1 where it also holds the right words.
    """

    def __init__(self) -> None:
        self.best = {"in_time": 1.0, "right": 1.0}

    def __call__(self, questions: Sequence[AnsweredQuestion]) -> list[Score]:
        return each(questions, _numbers)


def _numbers(question: AnsweredQuestion) -> dict[str, float]:
    if question.in_time is None:
        return {}
    return {"in_time": float(question.in_time), "right": float(bool(question.right))}
