"""Compare two runs of the same questions in pairs: difference with interval, wins, losses; of what
is right, and of every score that both runs have.

Knows rows only, and of a scorer its name and settings.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from encoders.errors import UserError
from pipeline.batch.run_folder import Row
from pipeline.batch.scores.rescore import recorded_scorers
from pipeline.batch.scores.score_table import group_by
from pipeline.batch.summary import own_rows
from pipeline.config.settings import PartSettings
from pipeline.scoring import difference

_Values = Mapping[str, float]  # id of a question -> number


@dataclass(frozen=True, slots=True)
class Scored:
    """The scores of a run."""

    rows: Sequence[Row]  # of scores.jsonl
    record: Mapping[str, Any]  # run.json


def compare(
    first: Sequence[Row], second: Sequence[Row], scored: tuple[Scored, Scored] | None = None
) -> dict[str, Any]:
    """Second minus first, over the questions that both runs have an outcome for, without controls.

    UserError when there are none, or when one id stands for two questions.
    """
    before, after = (_outcomes(rows) for rows in (first, second))
    rows = _same_questions(first, second)
    both = sorted(before.keys() & after.keys())
    scores, unequal = _compare_scores(rows, *scored) if scored else ({}, [])
    if not both and not scores:
        raise UserError(
            "the two runs have no question in common that both answered; compare runs of the "
            "same jobs"
        )
    return {
        "all": _differing(rows, before, after, both),
        "per_task": _per_task(rows, before, after, both),
        "scores": scores,
        "scored_differently": unequal,
        "only_first": len(before) - len(both),
        "only_second": len(after) - len(both),
        "won": [one for one in both if after[one] and not before[one]],
        "lost": [one for one in both if before[one] and not after[one]],
    }


def _compare_scores(
    rows: Mapping[str, Row], first: Scored, second: Scored
) -> tuple[dict[str, Any], list[str]]:
    """Column of a score -> its best value, and second minus first of all questions and of each
    task; and the columns of scorers that the runs set differently, which are left out."""
    figures: dict[str, Any] = {}
    unequal = []
    records = (first.record, second.record)
    columns, other = (record.get("scores") or {} for record in records)
    for name in (one for one in columns if one in other):
        one, two = (_settings_of(name, recorded_scorers(record)) for record in records)
        if one != two:
            unequal.append(name)
            continue
        before, after = (_numbers(run.rows, name, rows) for run in (first, second))
        if both := sorted(before.keys() & after.keys()):
            figures[name] = {
                "best": columns[name]["best"],
                "all": _differing(rows, before, after, both),
                "per_task": _per_task(rows, before, after, both),
            }
    return figures, unequal


def _outcomes(rows: Sequence[Row]) -> dict[str, bool]:
    return {row["id"]: row["right"] for row in own_rows(rows) if row["right"] is not None}


def _numbers(scored: Sequence[Row], name: str, rows: Mapping[str, Row]) -> dict[str, float]:
    return {
        one["id"]: float(one["metrics"][name])
        for one in scored
        if name in one["metrics"] and one["id"] in rows
    }


def _same_questions(first: Sequence[Row], second: Sequence[Row]) -> dict[str, Row]:
    """Id -> the first run's row of a question that both answered. UserError where an id stands for
    two questions. Videos are those of the first run: the second may have them elsewhere."""
    theirs = {row["id"]: row for row in own_rows(second)}
    rows = {row["id"]: row for row in own_rows(first) if row["id"] in theirs}
    other = next((one for one, row in rows.items() if row["job"] != theirs[one]["job"]), None)
    if other is not None:
        raise UserError(
            f"id {other} stands for two different questions; compare runs of the same jobs"
        )
    return rows


def _settings_of(column: str, nodes: Mapping[str, PartSettings]) -> PartSettings | None:
    """The settings of the scorer that a column belongs to; the longest name that it begins with."""
    names = [one for one in nodes if column == one or column.startswith(f"{one}_")]
    return nodes[max(names, key=len)] if names else None


def _per_task(
    rows: Mapping[str, Row], before: _Values, after: _Values, both: Sequence[str]
) -> dict[str, Any]:
    tasks = group_by(both, lambda one: str(rows[one]["task"]))
    return {name: _differing(rows, before, after, some) for name, some in tasks.items()}


def _differing(
    rows: Mapping[str, Row], before: _Values, after: _Values, both: Sequence[str]
) -> dict[str, Any]:
    """Figures of some questions, in pairs; {"n": 0} without any."""
    if not both:
        return {"n": 0}
    one, other = (
        [(str(rows[each]["video"]), values[each]) for each in both] for values in (after, before)
    )
    mean, low, high, count = difference(one, other)
    return {
        "first": sum(before[each] for each in both) / count,
        "second": sum(after[each] for each in both) / count,
        "difference": mean,
        "low": low,
        "high": high,
        "wins": sum(after[each] > before[each] for each in both),
        "losses": sum(after[each] < before[each] for each in both),
        "n": count,
    }


def as_text(result: Mapping[str, Any], first: str, second: str) -> str:
    """The comparison for people, one line a task. first, second: names of the runs."""
    lines = [
        f"{second} less {first}, per cent right of the same questions, 95 % interval over videos"
    ]
    if result["all"]["n"]:
        lines += _lines("all", result, 1.0, "")
    for name, figures in result["scores"].items():
        if figures["all"] == result["all"]:
            continue  # a column that says the same again
        best = float(figures["best"])
        lines += _lines(name if best == 1 else f"{name} (0-{best:g})", figures, best, "  ")
    if result["only_first"] or result["only_second"]:
        lines.append(
            f"left out: {result['only_first']} only in the first, "
            f"{result['only_second']} only in the second"
        )
    if unequal := result["scored_differently"]:
        lines.append(
            f"left out: {', '.join(unequal)}, which the runs score with different settings; score "
            "both again with action=score"
        )
    return "\n".join(lines)


def _lines(name: str, figures: Mapping[str, Any], best: float, indent: str) -> list[str]:
    """A line of all questions, and one of each task. In per cent unless the best is not 1."""
    scale, form = (100, ".1f") if best == 1 else (1, ".2f")
    rows = {name: figures["all"]} | {
        indent + task: row for task, row in figures["per_task"].items()
    }
    return [
        f"{title}: {scale * row['second']:{form}} less {scale * row['first']:{form}} "
        f"is {scale * row['difference']:+{form}} "
        f"({scale * row['low']:+{form}} to {scale * row['high']:+{form}}), "
        f"{row['wins']} won, {row['losses']} lost, n={row['n']}"
        for title, row in rows.items()
    ]
