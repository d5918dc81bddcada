"""The table of a run: a column for each score, a row for each task, with intervals.

Intervals are 95 %, bootstrapped over videos. Knows rows and scores; no scorer by name.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from pipeline.batch.run_folder import Row
from pipeline.batch.scores.score_rows import Scorers
from pipeline.scorers.schema import column
from pipeline.scoring import share

_WIDTH = 100  # letters of a line; more columns make a further table below
_ALL = "all"
# figure -> the column of a row that names its groups
GROUPINGS = {"per_task": "task", "per_category": "category", "per_duration": "duration"}

Figures = dict[str, Any]
_Naming = Callable[[Row], str]
_T = TypeVar("_T")


def score_figures(
    rows: Sequence[Row], scored: Sequence[Row], scorers: Scorers, duration_of: _Naming
) -> Figures:
    """Column -> best value, figures of all rows, of each group, and the mean over tasks.

    rows: answered, of answers.jsonl. scored: theirs, of scores.jsonl. duration_of: the name for how
    long a row's video is. Columns without a number are left out.
    """
    row_of = {row["id"]: row for row in rows}
    best = {
        column(key, name, scorer): value
        for key, scorer in scorers.items()
        for name, value in scorer.best.items()
    }
    namings: dict[str, _Naming] = {
        "per_task": lambda row: str(row["task"]),
        "per_category": lambda row: str(row.get("category") or ""),
        "per_duration": duration_of,
    }
    figures: Figures = {}
    for name, most in best.items():
        values = [
            (row_of[one["id"]], one["metrics"][name]) for one in scored if name in one["metrics"]
        ]
        if not values:
            continue
        groups = {
            title: group_by(values, lambda pair, naming=naming: naming(pair[0]))  # type: ignore[misc]
            for title, naming in namings.items()
        }
        figures[name] = {"best": most, _ALL: interval(_pairs(values))} | {
            title: {each: interval(_pairs(some)) for each, some in own.items()}
            for title, own in groups.items()
        }
        of_tasks = figures[name]["per_task"]
        if len(of_tasks) > 1:
            means = [one["mean"] for one in of_tasks.values()]
            figures[name]["mean_over_tasks"] = sum(means) / len(means)
    return figures


def _pairs(values: Sequence[tuple[Row, float]]) -> list[tuple[str, float]]:
    return [(row["video"], value) for row, value in values]


def group_by(values: Iterable[_T], key: Callable[[_T], str]) -> dict[str, list[_T]]:
    """Values by name, sorted by name. Those with an empty name are left out."""
    groups: dict[str, list[_T]] = {}
    for value in values:
        if name := key(value):
            groups.setdefault(name, []).append(value)
    return dict(sorted(groups.items()))


def interval(pairs: Sequence[tuple[str, float]]) -> dict[str, Any]:
    """mean, low, high and n of (video, value) pairs."""
    mean, low, high, count = share(pairs)
    return {"mean": mean, "low": low, "high": high, "n": count}


def unscored(scored: Sequence[Row]) -> list[Row]:
    """id, score and error of what could not be scored."""
    return [
        {"id": row["id"], "score": name, "error": error}
        for row in scored
        for name, error in row["errors"].items()
    ]


def table_lines(figures: Mapping[str, Figures]) -> list[str]:
    """The table for people, in per cent unless the head of a column says its range."""
    if not figures:
        return []
    heads = [
        name if one["best"] == 1 else f"{name} (0-{one['best']:g})" for name, one in figures.items()
    ]
    names = dict.fromkeys(
        (title, each) for title in GROUPINGS for one in figures.values() for each in one[title]
    )
    body: list[list[str]] = [[_ALL, *(_cell(one[_ALL], one["best"]) for one in figures.values())]]
    for title, each in names:
        cells = [
            _cell(one[title][each], one["best"]) if each in one[title] else "-"
            for one in figures.values()
        ]
        body.append([f"  {each}", *cells])
    if any("mean_over_tasks" in one for one in figures.values()):
        cells = [
            f"{_scaled(one['mean_over_tasks'], one['best'])}" if "mean_over_tasks" in one else "-"
            for one in figures.values()
        ]
        body.append(["mean over tasks", *cells])
    return _laid_out(["scores, 95 % interval over videos", *heads], body)


def _laid_out(head: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    """Aligned columns; those that do not fit the width make a further table with the first one."""
    widths = [max(len(line[at]) for line in (head, *body)) for at in range(len(head))]
    lines: list[str] = []
    at = 1
    while at < len(head):
        end, used = at + 1, widths[0] + 2 + widths[at]
        while end < len(head) and used + 2 + widths[end] <= _WIDTH:
            used += 2 + widths[end]
            end += 1
        chosen = [0, *range(at, end)]
        lines += [
            "  ".join(line[i].ljust(widths[i]) for i in chosen).rstrip() for line in (head, *body)
        ]
        at = end
    return lines


def _cell(figures: Figures, best: float) -> str:
    mean, low, high = (_scaled(figures[name], best) for name in ("mean", "low", "high"))
    return f"{mean} ({low}-{high}), n={figures['n']}"


def _scaled(value: float, best: float) -> str:
    return f"{100 * value:.1f}" if best == 1 else f"{value:.2f}"
