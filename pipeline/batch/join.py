"""Join the runs of several shards into one folder, as if one run had answered everything.

Knows rows and run.json; no model and no bank. The joined folder can be compared and continued: its
run.json records the settings that all its answers share.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from encoders.errors import UserError
from memory.storage import json_lines
from memory.storage.atomic import replacing
from pipeline.batch import run_folder, summary
from pipeline.batch.run_folder import Row, RunFolder
from pipeline.batch.scores import score_rows
from pipeline.batch.scores.rescore import scorers_of
from pipeline.config.settings import PartSettings

# copied from the record of each run
_RUN_KEYS = ("state", "began", "asked", "configuration", "revision", "versions", "machine")


def join(runs: Sequence[Path], out: Path, score: Mapping[str, PartSettings]) -> dict[str, Any]:
    """Write `out` and return its figures. Scores with the scorers of the first run.

    score: settings of scorers for runs that recorded none. UserError when the runs do not belong
    together, or when `out` has answers already.
    """
    if len(runs) < 2:
        raise UserError(f"action=join takes two runs or more, not {len(runs)}; write runs=[A,B]")
    if len({run.resolve() for run in runs}) < len(runs):
        raise UserError("action=join was given one run twice; name each once")
    target = RunFolder(out)
    if target.answers.exists():
        raise UserError(f"{out} holds answers already; use another out=DIR")
    folders = [RunFolder(run) for run in runs]
    records = [folder.read_record() for folder in folders]
    settings = _common_settings(runs, records)
    rows = _merge_rows(folders)
    videos = [row for folder in folders for row in folder.read_videos()]
    nodes = scorers_of(records[0]) or dict(score)
    scorers = score_rows.build_scorers(nodes)
    scored = score_rows.score_rows(summary.own_rows(rows), scorers)
    asked = sum(one["asked"] for one in records)
    bad_rows = sum(len(one["refused"]) for one in records)
    figures = summary.summary(rows, asked, bad_rows, scored, scorers) | {
        "state": "joined",
        "seconds": sum(one.get("seconds", 0.0) for one in records),
        "refused": [row for one in records for row in one["refused"]],
        "failures": summary.failures(rows),
    }
    run_records = {
        str(run): {key: one.get(key) for key in _RUN_KEYS}
        for run, one in zip(runs, records, strict=True)
    }
    with target.lock():
        # answers.jsonl last: a folder that has it is completely joined
        score_rows.write_scores(target.scores, scored)
        run_folder.write_parquet(target.answers_parquet, score_rows.with_metrics(rows, scored))
        run_folder.write_csv(target.videos_csv, summary.videos(rows, videos))
        target.write_record(figures | {"settings": settings, "score": nodes, "joined": run_records})
        for path, lines in ((target.videos, videos), (target.answers, rows)):
            with replacing(path, durable=True) as temporary:
                temporary.write_bytes(json_lines.encode(lines))
    return figures


def _common_settings(runs: Sequence[Path], records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The settings of all runs. UserError names the settings in which they differ."""
    settings: dict[str, Any] = records[0]["settings"]
    for run, record in zip(runs, records, strict=True):
        other = record["settings"]
        keys = sorted({*settings, *other})
        differ = [key for key in keys if settings.get(key) != other.get(key)]
        if differ:
            changes = ", ".join(f"{key}={settings.get(key)} and {other.get(key)}" for key in differ)
            raise UserError(
                f"{runs[0]} and {run} were made with {changes}; join runs of the same settings"
            )
    return settings


def _merge_rows(folders: Sequence[RunFolder]) -> list[Row]:
    """The rows of all runs, one for each id. An answer replaces a failure.

    UserError when one id stands for two questions.
    """
    merged: dict[str, tuple[Row, RunFolder]] = {}
    for folder in folders:
        for row in folder.read_answers():
            before = merged.get(row["id"])
            if before is not None and before[0]["job"] != row["job"]:
                raise UserError(
                    f"id {row['id']} stands for two questions in {before[1]} and {folder}; "
                    "join runs of one job file"
                )
            if before is None or before[0]["error"] is not None:
                merged[row["id"]] = row, folder
    return sorted((row for row, _ in merged.values()), key=lambda row: str(row["id"]))
