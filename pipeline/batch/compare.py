"""Compare two runs of the same questions in pairs: difference with interval, wins, losses.

Knows rows only.
"""

from collections.abc import Sequence
from typing import Any

from encoders.errors import UserError
from pipeline.batch.run_folder import Row
from pipeline.batch.scores.score_table import group_by
from pipeline.batch.summary import own_rows
from pipeline.scoring import difference


def compare(first: Sequence[Row], second: Sequence[Row]) -> dict[str, Any]:
    """Second minus first, over the questions that both runs have an outcome for, without controls.

    UserError when there are none, or when one id stands for two questions.
    """
    before = {row["id"]: row for row in own_rows(first) if row["right"] is not None}
    after = {row["id"]: row for row in own_rows(second) if row["right"] is not None}
    both = sorted(before.keys() & after.keys())
    if not both:
        raise UserError(
            "the two runs have no question in common that both answered; compare runs of the "
            "same jobs"
        )
    other = [one for one in both if before[one]["job"] != after[one]["job"]]
    if other:
        raise UserError(
            f"id {other[0]} stands for two different questions; compare runs of the same jobs"
        )
    pairs = [(before[one], after[one]) for one in both]
    tasks = group_by(
        ({"task": a["task"], "pair": (a, b)} for a, b in pairs), lambda row: row["task"]
    )
    return {
        "all": _differing(pairs),
        "per_task": {
            name: _differing([row["pair"] for row in some]) for name, some in tasks.items()
        },
        "only_first": len(before) - len(both),
        "only_second": len(after) - len(both),
        "won": [a["id"] for a, b in pairs if b["right"] and not a["right"]],
        "lost": [a["id"] for a, b in pairs if a["right"] and not b["right"]],
    }


def _differing(pairs: Sequence[tuple[Row, Row]]) -> dict[str, Any]:
    # clustered by the first run's names: the second may have the videos in another folder
    after, before = ([(pair[0]["video"], pair[i]["right"]) for pair in pairs] for i in (1, 0))
    mean, low, high, count = difference(after, before)
    return {
        "first": sum(a["right"] for a, _ in pairs) / count,
        "second": sum(b["right"] for _, b in pairs) / count,
        "difference": mean,
        "low": low,
        "high": high,
        "wins": sum(b["right"] and not a["right"] for a, b in pairs),
        "losses": sum(a["right"] and not b["right"] for a, b in pairs),
        "n": count,
    }


def as_text(result: dict[str, Any], first: str, second: str) -> str:
    """The comparison for people, one line a task. first, second: names of the runs."""
    lines = [
        f"{second} less {first}, per cent right of the same questions, 95 % interval over videos"
    ]
    for name, row in {"all": result["all"], **result["per_task"]}.items():
        lines.append(
            f"{name}: {100 * row['second']:.1f} less {100 * row['first']:.1f} "
            f"is {100 * row['difference']:+.1f} "
            f"({100 * row['low']:+.1f} to {100 * row['high']:+.1f}), "
            f"{row['wins']} won, {row['losses']} lost, n={row['n']}"
        )
    if result["only_first"] or result["only_second"]:
        lines.append(
            f"left out: {result['only_first']} only in the first, "
            f"{result['only_second']} only in the second"
        )
    return "\n".join(lines)
