"""The folder of a batch run: one writing process at a time, answers durable one by one.

    answers.jsonl    one row for every question, failed ones too; a later run resumes from it
    videos.jsonl     one row each time a video was encoded or found in the bank
    answers.parquet  videos.csv  run.json
                     written when the run ends; run.json also when it starts
    run.lock         locked while a run writes here

Knows no model and no bank.
"""

import errno
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

Row = dict[str, Any]

_CITED_TYPE = pyarrow.struct(
    [("ordinal", pyarrow.int64()), ("segment", pyarrow.int64())]
    + [(name, pyarrow.float64()) for name in ("time", "end", "weight", "score")]
)
_TEXT_COLUMNS = (
    "id",
    "video",
    "video_id",
    "question",
    "answer",
    "choice",
    "truth",
    "task",
    "duration",
    "group",
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
    + [(name, pyarrow.int64()) for name in ("frames_read", "visual_tokens", "answer_tokens")]
    + [
        ("options", pyarrow.list_(pyarrow.string())),
        ("scores", pyarrow.list_(pyarrow.float64())),
        ("spans", pyarrow.list_(pyarrow.list_(pyarrow.float64()))),
        ("cited", pyarrow.list_(_CITED_TYPE)),
        ("seconds", pyarrow.map_(pyarrow.string(), pyarrow.float64())),
    ]
)


class RunFolder:
    """Paths, lock, and records of one run's folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.answers = root / "answers.jsonl"
        self.videos = root / "videos.jsonl"
        self.run_json = root / "run.json"
        self.answers_parquet = root / "answers.parquet"
        self.videos_csv = root / "videos.csv"

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
        return read_lines(self.answers)

    def read_videos(self) -> list[Row]:
        """The rows of videos.jsonl; none when there is no such file."""
        return read_lines(self.videos) if self.videos.is_file() else []

    def write_record(self, record: dict[str, Any]) -> None:
        """Replace run.json."""
        replace_file(self.run_json, json.dumps(record, indent=2).encode() + b"\n")


class JsonLines:
    """A growing JSONL file. A row is durable when `append` returns."""

    def __init__(self, path: Path) -> None:
        """Removes the rest of a line that was cut off. UserError when a line is not JSON."""
        self.path = path
        data = path.read_bytes() if path.is_file() else b""
        complete = data[: data.rfind(b"\n") + 1]
        if len(complete) < len(data):
            os.truncate(path, len(complete))
        self.rows = list(parse_lines(path, complete))
        self._file = path.open("ab", buffering=0)

    def append(self, row: Row) -> None:
        """UserError when the disk is full or broken. The rows before it stay."""
        try:
            data = to_lines([row])
            # a full disk cuts the line off; the next run removes the rest
            if self._file.write(data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(self._file.fileno())
        except OSError as error:
            raise UserError(
                f"{self.path} cannot be written ({error.strerror}); make room and run the same "
                "again"
            ) from error
        self.rows.append(row)

    def keep(self, rows: Sequence[Row]) -> None:
        """Replace the file by these rows, atomically."""
        self._file.close()
        replace_file(self.path, to_lines(rows))
        self.rows, self._file = list(rows), self.path.open("ab", buffering=0)

    def close(self) -> None:
        self._file.close()


def parse_lines(path: Path, data: bytes) -> Iterator[Row]:
    """The rows of complete lines. UserError names a damaged line."""
    for number, line in enumerate(data.splitlines(), start=1):
        try:
            yield json.loads(line)
        except ValueError as error:
            raise UserError(
                f"{path} line {number} is damaged; take it away and run again, or use another "
                "out=DIR"
            ) from error


def read_lines(path: Path) -> list[Row]:
    """The rows of a JSONL file, without a last line that was cut off."""
    data = path.read_bytes()
    return list(parse_lines(path, data[: data.rfind(b"\n") + 1]))


def to_lines(rows: Sequence[Row]) -> bytes:
    """Rows as JSON lines."""
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


def replace_file(path: Path, data: bytes) -> None:
    """Replace a file atomically and durably."""
    temporary = path.with_name(path.name + ".partial")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def to_table(rows: Sequence[Row]) -> pyarrow.Table:
    """Rows of answers.jsonl as a table with the columns and types of answers.parquet."""
    return pyarrow.Table.from_pylist(
        [row | {"seconds": list(row["seconds"].items())} for row in rows], schema=SCHEMA
    )


def write_parquet(path: Path, rows: Sequence[Row]) -> None:
    """Write answers.parquet."""
    temporary = path.with_name(path.name + ".partial")
    pyarrow.parquet.write_table(to_table(rows), temporary)
    temporary.replace(path)


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Write a flat table; nothing when there are no rows."""
    if rows:
        temporary = path.with_name(path.name + ".partial")
        pyarrow.csv.write_csv(pyarrow.Table.from_pylist(list(rows)), temporary)
        temporary.replace(path)
