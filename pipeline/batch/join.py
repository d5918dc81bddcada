"""Join the runs of several shards into one folder, as if one run had answered everything.

Knows rows and run.json; no model and no bank. The joined folder can be compared and continued: its
run.json records the settings that all its answers share.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from encoders.errors import UserError
from memory.storage import json_lines
from memory.storage.atomic import replacing
from pipeline.batch import run_folder, summary
from pipeline.batch.run_folder import Row, RunFolder

# copied from the record of each run
_RUN_KEYS = ("state", "began", "asked", "configuration", "revision", "versions", "machine")


def join(runs: Sequence[Path], out: Path) -> dict[str, Any]:
    """Write `out` and return its figures.

    UserError when the runs do not belong together, or when `out` has answers already.
    """
    if len(runs) < 2:
        raise UserError(f"action=join takes two runs or more, not {len(runs)}; write runs=[A,B]")
    if len({run.resolve() for run in runs}) < len(runs):
        raise UserError("action=join was given one run twice; name each once")
    target = RunFolder(out)
    if target.answers.exists():
        raise UserError(f"{out} holds answers already; use another out=DIR")
    folders = [RunFolder(run) for run in runs]
    records = [_read_record(folder) for folder in folders]
    settings = _common_settings(runs, records)
    rows = _merge_rows(folders)
    videos = [row for folder in folders for row in folder.read_videos()]
    figures = summary.summary(
        rows, sum(one["asked"] for one in records), sum(len(one["refused"]) for one in records)
    ) | {
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
        run_folder.write_parquet(target.answers_parquet, rows)
        run_folder.write_csv(target.videos_csv, summary.videos(rows, videos))
        target.write_record(figures | {"settings": settings, "joined": run_records})
        for path, lines in ((target.videos, videos), (target.answers, rows)):
            with replacing(path, durable=True) as temporary:
                temporary.write_bytes(json_lines.encode(lines))
    return figures


def _read_record(folder: RunFolder) -> dict[str, Any]:
    """The run.json of a run. UserError when it is missing or damaged."""
    path = folder.run_json
    if not path.is_file():
        raise UserError(f"there is no run in {folder}; give the out=DIR of a batch")
    try:
        record: dict[str, Any] = json.loads(path.read_bytes())
        return {
            "settings": dict(record["settings"]),
            "refused": list(record["refused"]),
            "asked": int(record["asked"]),
        } | record
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged; run that part again") from error


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
