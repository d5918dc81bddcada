"""The runs of several shards -> one folder as if one run had done it all. Knows rows and run.json, no model and no bank.

The joined folder can be compared, and gone on with: its run.json says with which settings its answers were made.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from encoders.errors import UserError
from pipeline.batch import run_folder, summary
from pipeline.batch.run_folder import Row

# of each run
_KEPT = ("state", "began", "asked", "configuration", "revision", "versions", "machine")


def join(runs: Sequence[Path], out: Path) -> dict[str, Any]:
    """Write `out`; its figures. UserError when runs do not belong together, or `out` holds answers."""
    if len(runs) < 2:
        raise UserError(f"action=join takes two runs or more, not {len(runs)}; write runs=[A,B]")
    if len({run.resolve() for run in runs}) < len(runs):
        raise UserError("action=join was given one run twice; name each once")
    if (out / "answers.jsonl").exists():
        raise UserError(f"{out} holds answers already; use another out=DIR")
    told = [_told(run) for run in runs]
    settings = told[0]["settings"]
    for run, other in zip(runs, told, strict=True):
        differ = [
            key
            for key in sorted({*settings, *other["settings"]})
            if settings.get(key) != other["settings"].get(key)
        ]
        if differ:
            changes = ", ".join(
                f"{key}={settings.get(key)} and {other['settings'].get(key)}" for key in differ
            )
            raise UserError(
                f"{runs[0]} and {run} were made with {changes}; join runs of the same settings"
            )
    rows = _all(runs)
    videos = [row for run in runs for row in _lines(run / "videos.jsonl")]
    figures = summary.summary(
        rows, sum(one["asked"] for one in told), sum(len(one["refused"]) for one in told)
    ) | {
        "state": "joined",
        "seconds": sum(one.get("seconds", 0.0) for one in told),
        "refused": [one for run in told for one in run["refused"]],
        "failures": [
            {"id": row["id"], "video": row["video"], "error": row["error"]}
            for row in rows
            if row["error"]
        ],
    }
    with run_folder.locked(out):
        # answers.jsonl comes last: a folder with it is joined
        run_folder.write_parquet(out / "answers.parquet", rows)
        run_folder.write_csv(out / "videos.csv", summary.videos(rows, videos))
        runs_told = {
            str(run): {key: one.get(key) for key in _KEPT}
            for run, one in zip(runs, told, strict=True)
        }
        data = figures | {"settings": settings, "joined": runs_told}
        run_folder.replace(out / "run.json", json.dumps(data, indent=2).encode() + b"\n")
        run_folder.replace(out / "videos.jsonl", run_folder.written(videos))
        run_folder.replace(out / "answers.jsonl", run_folder.written(rows))
    return figures


def _told(run: Path) -> dict[str, Any]:
    """run.json of a run."""
    path = run / "run.json"
    if not path.is_file():
        raise UserError(f"there is no run in {run}; give the out=DIR of a batch")
    try:
        told: dict[str, Any] = json.loads(path.read_bytes())
        return {
            "settings": dict(told["settings"]),
            "refused": list(told["refused"]),
            "asked": int(told["asked"]),
        } | told
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged; run that part again") from error


def _all(runs: Sequence[Path]) -> list[Row]:
    """All rows, each id once: an answer goes before a failure, the same answer twice is one."""
    found: dict[str, tuple[Row, Path]] = {}
    for run in runs:
        for row in run_folder.read(run):
            before = found.get(row["id"])
            if before is not None and before[0]["job"] != row["job"]:
                raise UserError(
                    f"id {row['id']} stands for two questions in {before[1]} and {run}; join runs of one job file"
                )
            if before is None or before[0]["error"] is not None:
                found[row["id"]] = row, run
    return sorted((row for row, _ in found.values()), key=lambda row: str(row["id"]))


def _lines(path: Path) -> list[Row]:
    data = path.read_bytes() if path.is_file() else b""
    return list(run_folder.parsed(path, data[: data.rfind(b"\n") + 1]))
