"""Arms beside each other on the same questions: perception and backward apart, and differences in
pairs with intervals clustered by film. Knows rows only."""

from collections.abc import Iterator, Sequence
from itertools import combinations

from pipeline.evaluation.needle.results import score
from pipeline.evaluation.needle.results.score import ResultRow
from pipeline.scoring import difference

KINDS = ("perception", "backward")
MOST_PAIRED = 6  # configurations of which every pair is compared; of more, each with the first one


def by_kind(rows: Sequence[ResultRow]) -> list[str]:
    """Markdown: arms down; % right of perception and of backward questions across."""
    asked = [row for row in score.answerable(rows) if row["kind"] in KINDS]
    if not asked:
        return []
    lines = []
    for arm, own in score.by(asked, "arm").items():
        kinds = score.by(own, "kind")
        lines.append([arm, *(score.cell(score.accuracy(kinds.get(kind, []))) for kind in KINDS)])
    return score.markdown(["", *KINDS], lines)


def table(rows: Sequence[ResultRow]) -> list[str]:
    """Markdown: pairs down; the difference of all questions, and of each kind, across. Empty where
    there is one arm alone."""
    own = score.by(score.answerable(rows), "arm")
    lines = []
    for one, other in _pairs(own):
        cells = [cell(own[one], own[other])]
        cells += [
            cell(
                [row for row in own[one] if row["kind"] == kind],
                [row for row in own[other] if row["kind"] == kind],
            )
            for kind in KINDS
        ]
        lines.append([f"{one} - {other}", *cells])
    return score.markdown(["", "all", *KINDS], lines) if lines else []


def cell(first: Sequence[ResultRow], second: Sequence[ResultRow]) -> str:
    """ "+12.5 (+3.1 to +20.8), n=48": points of free answers that are right, over the questions
    that both arms were asked; "-" without any."""
    mine = {row["item"]: row for row in first}
    theirs = {row["item"]: row for row in second}
    both = [item for item in mine if item in theirs]
    mean, low, high, count = difference(
        [(mine[item]["film"], mine[item]["right"]) for item in both],
        [(theirs[item]["film"], theirs[item]["right"]) for item in both],
    )
    if not count:
        return "-"
    return f"{100 * mean:+.1f} ({100 * low:+.1f} to {100 * high:+.1f}), n={count}"


def _pairs(own: dict[str, list[ResultRow]]) -> Iterator[tuple[str, str]]:
    """Every pair of a few configurations, else each with the first one; then the first one with
    every control."""
    configurations = [arm for arm, rows in own.items() if not rows[0]["control"]]
    if not configurations:
        return
    if len(configurations) <= MOST_PAIRED:
        yield from combinations(configurations, 2)
    else:
        yield from ((other, configurations[0]) for other in configurations[1:])
    yield from ((configurations[0], arm) for arm, rows in own.items() if rows[0]["control"])
