"""What a threshold of abstention would do to the answers of an arm that measured absence.

An arm with `abstention.threshold=1` asks everything once; every lower threshold follows from its
rows, because a threshold only ever turns an answer into "not in the video".
"""

from collections.abc import Sequence

from pipeline.evaluation.needle.results import score
from pipeline.evaluation.needle.results.score import Pairs, ResultRow

THRESHOLDS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0)


def refused(row: ResultRow, threshold: float) -> bool:
    """Whether the answer is "not in the video" at this threshold, or by the model's own words."""
    return not row["shown"] or (threshold <= row["absence"] and threshold < 1)


def false_positives(rows: Sequence[ResultRow], threshold: float) -> Pairs:
    """Whether a question about what no card shows gets an answer."""
    return [(row["film"], not refused(row, threshold)) for row in rows if not row["options"]]


def false_refusals(rows: Sequence[ResultRow], threshold: float) -> Pairs:
    """Whether a question that the film answers gets "not in the video"."""
    return [(row["film"], refused(row, threshold)) for row in score.answerable(rows)]


def right(rows: Sequence[ResultRow], threshold: float) -> Pairs:
    """Whether a question that the film answers gets the right answer."""
    return [
        (row["film"], row["right"] and not refused(row, threshold))
        for row in score.answerable(rows)
    ]


def table(rows: Sequence[ResultRow]) -> list[str]:
    """Markdown: arms and thresholds down. Empty where no arm measured absence."""
    lines = [
        [
            arm,
            f"{threshold:g}",
            score.cell(false_positives(own, threshold)),
            score.cell(false_refusals(own, threshold)),
            score.cell(right(own, threshold)),
        ]
        for arm, own in score.by(_measured(rows), "arm").items()
        for threshold in THRESHOLDS
        if threshold <= _least(own)
    ]
    head = ["", "threshold", "false positives, %", "false refusals, %", "right, %"]
    return score.markdown(head, lines) if lines else []


def _measured(rows: Sequence[ResultRow]) -> list[ResultRow]:
    return [row for row in rows if row.get("absence") is not None]


def _least(rows: Sequence[ResultRow]) -> float:
    """The threshold that the arm itself ran with: answers above it were never given."""
    return float(rows[0]["threshold"])
