"""The figures of a run: counts, accuracies and scores with intervals clustered by video, a row per
video.

Knows rows only. An answer that names no option is wrong, and also counted as unparsed. A question
that failed has no outcome: it appears in the counts, not in the accuracies.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.batch.run_folder import Row
from pipeline.batch.scores.score_rows import Scorers
from pipeline.batch.scores.score_table import (
    GROUPINGS,
    group_by,
    score_figures,
    table_lines,
    unscored,
)
from pipeline.scoring import share

_DURATIONS = (
    (120, "under 2 min"),
    (900, "2 to 15 min"),
    (3600, "15 to 60 min"),
    (float("inf"), "over 60 min"),
)


def summary(
    rows: Sequence[Row],
    asked: int,
    rejected: int,
    scored: Sequence[Row] = (),
    scorers: Scorers | None = None,
) -> dict[str, Any]:
    """Counts, accuracies and scores of the run itself. Rows of controls count among the failed.

    rows: of answers.jsonl. asked: questions of this run. rejected: rows of the job file. scored: of
    scores.jsonl.
    """
    answered = [row for row in own_rows(rows) if row["error"] is None]
    known = [row for row in answered if row["right"] is not None]
    tasks = group_by(known, lambda row: row["task"])
    durations = group_by(known, duration)
    result: dict[str, Any] = {
        "asked": asked,
        "answered": len(answered),
        "failed": sum(row["error"] is not None for row in rows),
        "bad_rows": rejected,
        "unparsed": sum(bool(row["options"]) and row["choice"] is None for row in answered),
        "accuracy": accuracy(known),
        "per_task": {name: accuracy(some) for name, some in tasks.items()},
        "per_duration": {name: accuracy(some) for name, some in durations.items()},
    }
    if len(tasks) > 1:  # MLVU and OVO-Bench weight tasks equally, whatever their size
        shares = [accuracy(some)["share"] for some in tasks.values()]
        result["mean_over_tasks"] = sum(shares) / len(shares)
    result["scores"] = score_figures(answered, scored, scorers or {}, duration)
    result["unscored"] = unscored(scored)
    return result | _usage(answered)


def _usage(rows: Sequence[Row]) -> dict[str, Any]:
    """Tokens that servers counted, and their cost where prices were set; none without servers."""
    counted = [row for row in rows if row.get("prompt_tokens") is not None]
    if not counted:
        return {}
    costs = [row["cost"] for row in counted if row["cost"] is not None]
    tokens = {
        name: sum(row[name] for row in counted) for name in ("prompt_tokens", "answer_tokens")
    }
    return tokens | ({"cost": round(sum(costs), 6)} if costs else {})


def failures(rows: Sequence[Row]) -> list[Row]:
    """id, video, and error of the questions that failed."""
    keys = ("id", "video", "error")
    return [{key: row[key] for key in keys} for row in rows if row["error"]]


def as_text(figures: dict[str, Any], out: Path) -> str:
    """The figures for people. out: the run's folder."""
    counts = f"{figures['answered']} of {figures['asked']} answered, {figures['failed']} failed"
    lines = [
        f"{counts}, {figures['bad_rows']} rows refused, "
        f"{figures['unparsed']} answers name no option; see {out}"
    ]
    columns = figures["scores"]
    if figures["accuracy"]["n"]:
        own = _as_column(figures)
        # a column that says the same again is left out
        others = {name: one for name, one in columns.items() if one["all"] != own["all"]}
        columns = {"accuracy": own} | others
    lines += table_lines(columns)
    if "prompt_tokens" in figures:
        cost = f", cost {figures['cost']:g}" if "cost" in figures else ""
        lines.append(
            f"{figures['prompt_tokens']} tokens sent, {figures['answer_tokens']} received{cost}"
        )
    lines += [
        f"failed {row['id']} ({row['video']}): {row['error']}" for row in figures["failures"][:10]
    ]
    lines += [
        f"no {row['score']} of {row['id']}: {row['error']}" for row in figures["unscored"][:10]
    ]
    return "\n".join(lines)


def as_cell(figures: Mapping[str, Any]) -> str:
    """ "97.5 % (95.0-99.2), n=120": an accuracy with its interval; "-" without rows."""
    if not figures["n"]:
        return "-"
    mean, low, high = (100 * figures[name] for name in ("share", "low", "high"))
    return f"{mean:.1f} % ({low:.1f}-{high:.1f}), n={figures['n']}"


def _as_column(figures: dict[str, Any]) -> dict[str, Any]:
    """The accuracies as a column of the table of scores."""

    def named(one: dict[str, Any]) -> dict[str, Any]:
        return {"mean": one["share"]} | {name: one[name] for name in ("low", "high", "n")}

    column = {"best": 1.0, "all": named(figures["accuracy"])} | {
        title: {name: named(one) for name, one in figures.get(title, {}).items()}
        for title in GROUPINGS
    }
    mean = figures.get("mean_over_tasks")
    return column if mean is None else column | {"mean_over_tasks": mean}


def accuracy(rows: Sequence[Row]) -> dict[str, Any]:
    """share, low, high (95 %, bootstrapped over videos), and n; share is None without rows."""
    return _interval(share([(row["video"], row["right"]) for row in rows]))


def _interval(estimate: tuple[float, float, float, int]) -> dict[str, Any]:
    mean, low, high, count = estimate
    return (
        {"share": mean, "low": low, "high": high, "n": count} if count else {"share": None, "n": 0}
    )


def duration(row: Row) -> str:
    """The benchmark's name for the video's duration, or else one by its seconds."""
    if row["duration"] or row["video_seconds"] is None:
        return str(row["duration"])
    return next(name for most, name in _DURATIONS if row["video_seconds"] < most)


def own_rows(rows: Sequence[Row]) -> list[Row]:
    """The rows of the run itself, without those of controls."""
    return [row for row in rows if not row.get("control")]


def videos(rows: Sequence[Row], encoded: Sequence[Row]) -> list[Row]:
    """A row for every video: questions, outcomes, and encoding over all runs in this folder."""
    table = []
    asked = group_by(own_rows(rows), lambda row: row["video"])
    # a video of which no question was asked but together with others has a row as well
    names = sorted({*asked, *(one["video"] for one in encoded)})
    for name, some in ((name, asked.get(name, [])) for name in names):
        passes = [one for one in encoded if one["video"] == name]
        last = passes[-1] if passes else {}
        table.append(
            {
                "video": name,
                "video_id": last.get("video_id"),
                "video_seconds": last.get("video_seconds"),
                "frames": last.get("frames"),
                "questions": len(some),
                "right": sum(row["right"] is True for row in some),
                "wrong": sum(row["right"] is False for row in some),
                "failed": sum(row["error"] is not None for row in some),
                "times_encoded": sum(one["new_segments"] > 0 for one in passes),
                "encode_seconds": sum(one["seconds"] for one in passes if one["new_segments"]),
                "answer_seconds": sum(row["seconds"].get("total", 0.0) for row in some),
                "bank": last.get("bank"),
                "error": next((row["error"] for row in some if row["error"]), None),
            }
        )
    return table
