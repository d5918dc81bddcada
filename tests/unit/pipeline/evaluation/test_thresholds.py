"""Thresholds of abstention: what each would do to answers that were given once."""

from pipeline.evaluation.needle.results import thresholds


def row(film: str, absence: float | None, *, is_shown: bool, right: bool = False, truth=True):
    return {
        "arm": "a", "film": film, "absence": absence, "shown": is_shown, "right": right,
        "options": ["x"] if truth else [], "threshold": 1.0,
    }  # fmt: skip


ROWS = [
    row("one", 0.02, is_shown=True, right=True),
    row("one", 0.40, is_shown=True, right=True),
    row("two", 0.99, is_shown=False),
    row("one", 0.30, is_shown=True, truth=False),
    row("two", 0.80, is_shown=True, truth=False),
]


def share(pairs) -> float:
    return sum(outcome for _, outcome in pairs) / len(pairs)


def test_a_lower_threshold_refuses_more():
    for threshold, positives, refusals, right in [
        (0.1, 0.0, 2 / 3, 1 / 3), (0.35, 0.5, 2 / 3, 1 / 3), (0.5, 0.5, 1 / 3, 2 / 3),
        (0.9, 1.0, 1 / 3, 2 / 3),
    ]:  # fmt: skip
        assert share(thresholds.false_positives(ROWS, threshold)) == positives
        assert share(thresholds.false_refusals(ROWS, threshold)) == refusals
        assert share(thresholds.right(ROWS, threshold)) == right


def test_arms_that_measured_nothing_have_no_line():
    assert thresholds.table([row("one", None, is_shown=True)]) == []
    table = thresholds.table([*ROWS, row("one", None, is_shown=True)])
    assert len(table) == 2 + len(thresholds.THRESHOLDS) and "n=2" in table[2]


def test_a_threshold_above_the_run_s_own_has_no_line():
    strict = [{**one, "threshold": 0.3} for one in ROWS]
    assert [line.split(" | ")[1] for line in thresholds.table(strict)[2:]] == [
        f"{each:g}" for each in thresholds.THRESHOLDS if each <= 0.3
    ]
