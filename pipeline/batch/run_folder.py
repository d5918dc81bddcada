"""The folder of a batch run: one writing process at a time, answers durable one by one.

    answers.jsonl    one row for every question, failed ones too; a later run resumes from it
    scores.jsonl     the scores of each answer; written when the run ends, or is scored again
    videos.jsonl     one row each time a video was encoded or found in the bank
    answers.parquet  videos.csv  run.json  controls.md (where controls were asked)
                     written when the run ends; run.json also when it starts
    run.lock         locked while a run writes here

Knows no model and no bank.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.csv
import pyarrow.parquet

from encoders.errors import UserError
from memory.storage import json_lines
from memory.storage.atomic import replacing
from memory.storage.json_lines import JsonRow

Row = JsonRow

_CITED_TYPE = pyarrow.struct(
    [("video_id", pyarrow.string()), ("ordinal", pyarrow.int64()), ("segment", pyarrow.int64())]
    + [(name, pyarrow.float64()) for name in ("time", "end", "weight", "score")]
)
_SPANS_TYPE = pyarrow.list_(pyarrow.list_(pyarrow.float64()))
_BASIS_TYPE = pyarrow.struct([("text", pyarrow.string()), ("spans", _SPANS_TYPE)])
_VIDEO_TYPE = pyarrow.struct(
    [(name, pyarrow.string()) for name in ("video_id", "path")] + [("spans", _SPANS_TYPE)]
)
_TEXT_COLUMNS = (
    "id",
    "video",
    "video_id",
    "question",
    "answer",
    "choice",
    "truth",
    "rule",
    "task",
    "category",
    "duration",
    "group",
    "pair",
    "control",
)
SCHEMA = pyarrow.schema(
    [
        (name, pyarrow.string())
        for name in (*_TEXT_COLUMNS, "bank", "bank_id", "warning", "error", "job")
    ]
    + [
        (name, pyarrow.float64())
        for name in ("asked_at", "evidence_seconds_cited", "video_seconds")
    ]
    + [(name, pyarrow.bool_()) for name in ("right", "evidence_cited")]
    + [
        (name, pyarrow.int64())
        for name in ("frames_read", "visual_tokens", "prompt_tokens", "answer_tokens")
    ]
    + [(name, pyarrow.float64()) for name in ("cost", "confidence")]
    + [(name, pyarrow.string()) for name in ("cited_by", "channel")]
    + [
        ("options", pyarrow.list_(pyarrow.string())),
        ("accepted", pyarrow.list_(pyarrow.string())),
        ("scores", pyarrow.list_(pyarrow.float64())),
        ("spans", _SPANS_TYPE),
        ("recalled", _SPANS_TYPE),
        ("found", _SPANS_TYPE),
        ("found_videos", pyarrow.list_(pyarrow.string())),
        ("evidence_video", pyarrow.string()),
        ("answered_at", pyarrow.float64()),
        ("in_time", pyarrow.bool_()),
        ("evidence", _SPANS_TYPE),
        ("basis", pyarrow.list_(_BASIS_TYPE)),
        ("cited", pyarrow.list_(_CITED_TYPE)),
        ("videos", pyarrow.list_(_VIDEO_TYPE)),
        ("seconds", pyarrow.map_(pyarrow.string(), pyarrow.float64())),
        ("metrics", pyarrow.map_(pyarrow.string(), pyarrow.float64())),
    ]
)


class RunFolder:
    """Paths, lock, and records of one run's folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.answers = root / "answers.jsonl"
        self.scores = root / "scores.jsonl"
        self.videos = root / "videos.jsonl"
        self.run_json = root / "run.json"
        self.answers_parquet = root / "answers.parquet"
        self.videos_csv = root / "videos.csv"
        self.controls_md = root / "controls.md"

    def __str__(self) -> str:
        return str(self.root)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Create the folder if necessary and hold its lock. UserError when another process does."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.root / "run.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise UserError(
                f"{self} cannot be written ({error.strerror}); use another out=DIR"
            ) from error
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(
                    f"another run is writing to {self}; wait for it or use another out=DIR"
                ) from error
            yield
        finally:
            os.close(handle)

    def read_answers(self) -> list[Row]:
        """The rows of answers.jsonl. UserError when there is no such file."""
        if not self.answers.is_file():
            raise UserError(f"there are no answers in {self}; give the out=DIR of a batch")
        return json_lines.read(self.answers)

    def read_scores(self) -> list[Row]:
        """The rows of scores.jsonl; none when there is no such file."""
        return json_lines.read(self.scores)

    def read_videos(self) -> list[Row]:
        """The rows of videos.jsonl; none when there is no such file."""
        return json_lines.read(self.videos)

    def write_controls(self, table: Sequence[str]) -> None:
        """Replace controls.md; nothing for a table with no rows."""
        if len(table) > 2:
            with replacing(self.controls_md) as temporary:
                temporary.write_text("\n".join(table) + "\n", encoding="utf-8")

    def read_record(self) -> dict[str, Any]:
        """run.json, with settings, refused and asked. UserError when it is missing or damaged."""
        if not self.run_json.is_file():
            raise UserError(f"there is no run in {self}; give the out=DIR of a batch")
        try:
            record: dict[str, Any] = json.loads(self.run_json.read_bytes())
            return record | {
                "settings": dict(record["settings"]),
                "refused": list(record["refused"]),
                "asked": int(record["asked"]),
            }
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{self.run_json} is damaged; run that part again") from error

    def write_record(self, record: dict[str, Any]) -> None:
        """Replace run.json."""
        with replacing(self.run_json, durable=True) as temporary:
            temporary.write_bytes(json.dumps(record, indent=2).encode() + b"\n")


def to_table(rows: Sequence[Row]) -> pyarrow.Table:
    """Rows of answers.jsonl as a table with the columns and types of answers.parquet."""
    return pyarrow.Table.from_pylist(
        [
            _as_utf8(row)
            | {name: list(row.get(name, {}).items()) for name in ("seconds", "metrics")}
            for row in rows
        ],
        schema=SCHEMA,
    )


def _as_utf8(row: Row) -> Row:
    """The row with bytes of file names that are no UTF-8 as escapes: Arrow takes nothing else."""
    return {name: _escaped(value) for name, value in row.items()}


def _escaped(value: Any) -> Any:
    """The texts of a row's cell as UTF-8."""
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, list):
        return [_escaped(one) for one in value]
    return _as_utf8(value) if isinstance(value, dict) else value


def write_parquet(path: Path, rows: Sequence[Row]) -> None:
    """Write answers.parquet."""
    with replacing(path) as temporary:
        pyarrow.parquet.write_table(to_table(rows), temporary)


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Write a flat table; nothing when there are no rows."""
    if rows:
        with replacing(path) as temporary:
            pyarrow.csv.write_csv(
                pyarrow.Table.from_pylist([_as_utf8(row) for row in rows]), temporary
            )
