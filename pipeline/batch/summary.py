"""What a run came to: counts, accuracies with intervals clustered by video, a row for every video. Knows rows only.

An answer that names no option is wrong, and counted as unparsed beside it. A question that failed has no outcome: it is in
the counts, not in the accuracies.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from pipeline.batch.run_folder import Row
from pipeline.scoring import share

_LENGTHS = (
    (120, "under 2 min"),
    (900, "2 to 15 min"),
    (3600, "15 to 60 min"),
    (float("inf"), "over 60 min"),
)


def summary(rows: Sequence[Row], asked: int, bad: int) -> dict[str, Any]:
    """Counts and accuracies; rows: of answers.jsonl, asked: questions of this run, bad: rows that were refused."""
    answered = [row for row in rows if row["error"] is None]
    scored = [row for row in answered if row["right"] is not None]
    tasks = by(scored, lambda row: row["task"])
    told: dict[str, Any] = {
        "asked": asked,
        "answered": len(answered),
        "failed": len(rows) - len(answered),
        "bad_rows": bad,
        "unparsed": sum(bool(row["options"]) and row["choice"] is None for row in answered),
        "accuracy": accuracy(scored),
        "per_task": {name: accuracy(some) for name, some in tasks.items()},
        "per_duration": {name: accuracy(some) for name, some in by(scored, duration).items()},
    }
    if len(tasks) > 1:  # MLVU and OVO-Bench count tasks alike, however many questions they have
        told["mean_over_tasks"] = sum(accuracy(some)["share"] for some in tasks.values()) / len(
            tasks
        )
    groups = by([row for row in scored if row["group"]], lambda row: row["group"])
    if groups:
        whole = [(some[0]["video"], all(row["right"] for row in some)) for some in groups.values()]
        told["groups_all_right"] = _figures(share(whole))
        of_task = by(
            (some[0] for some in groups.values() if len({row["task"] for row in some}) == 1),
            lambda row: row["task"],
        )
        # VNBench counts a question's four tries together, and its nine tasks alike
        if len(of_task) > 1:
            shares = {
                name: sum(all(row["right"] for row in groups[one["group"]]) for one in some)
                / len(some)
                for name, some in of_task.items()
            }
            told["groups_all_right_per_task"] = shares
            told["mean_over_tasks_of_groups"] = sum(shares.values()) / len(shares)
    cited = [
        (row["video"], row["evidence_cited"])
        for row in answered
        if row["evidence_cited"] is not None
    ]
    if cited:
        told["evidence_cited"] = _figures(share(cited))
    return told


def accuracy(rows: Sequence[Row]) -> dict[str, Any]:
    """share, lower, upper (95 %, bootstrapped over videos) and n; share None without rows."""
    return _figures(share([(row["video"], row["right"]) for row in rows]))


def _figures(found: tuple[float, float, float, int]) -> dict[str, Any]:
    mean, low, high, count = found
    return (
        {"share": mean, "low": low, "high": high, "n": count} if count else {"share": None, "n": 0}
    )


def by(rows: Iterable[Row], key: Any) -> dict[str, list[Row]]:
    """Rows by a name, those without one left out."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        if key(row):
            found.setdefault(key(row), []).append(row)
    return dict(sorted(found.items()))


def duration(row: Row) -> str:
    """The benchmark's name for how long the video is, else one by its seconds."""
    if row["duration"] or row["video_seconds"] is None:
        return str(row["duration"])
    return next(name for most, name in _LENGTHS if row["video_seconds"] < most)


def videos(rows: Sequence[Row], encoded: Sequence[Row]) -> list[Row]:
    """A row for every video: what was asked, how it went, and what encoding it took over all runs into this folder."""
    table = []
    for name, some in sorted(by(rows, lambda row: row["video"]).items()):
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
