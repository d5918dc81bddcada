"""The folder of a run: one process at a time, answers appended and on the disk one by one, tables at the end.

    answers.jsonl    a row for every question, also for those that failed; what a later run goes on from
    videos.jsonl     a row each time that a video was found in the bank or encoded
    answers.parquet videos.csv run.json    written when the run ends (run.json also when it begins)
    run.lock         held while a run writes here
Knows no model and no bank. A line is whole when its newline is there: the rest of a line that kill -9 cut off is taken away.
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

_CITED = pyarrow.struct(
    [("ordinal", pyarrow.int64()), ("segment", pyarrow.int64())]
    + [(name, pyarrow.float64()) for name in ("time", "end", "weight", "score")]
)
_TEXTS = (
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
    [(name, pyarrow.string()) for name in (*_TEXTS, "bank", "bank_id", "warning", "error", "job")]
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
        ("cited", pyarrow.list_(_CITED)),
        ("seconds", pyarrow.map_(pyarrow.string(), pyarrow.float64())),
    ]
)


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """The right to write into this folder, which is made if it is not there. UserError when another process has it."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        handle = os.open(out / "run.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise UserError(
            f"{out} cannot be written ({error.strerror}); use another out=DIR"
        ) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"another run is writing to {out}; wait for it or use another out=DIR"
            ) from error
        yield
    finally:
        os.close(handle)


class Lines:
    """A JSONL file that grows: each row is on the disk when `append` returns."""

    def __init__(self, path: Path) -> None:
        """Takes the rest of a line that was cut off away. UserError when a line is not JSON."""
        self.path = path
        data = path.read_bytes() if path.is_file() else b""
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):
            os.truncate(path, len(whole))
        self.rows = list(parsed(path, whole))
        self._file = path.open("ab", buffering=0)

    def append(self, row: Row) -> None:
        """UserError when the disk does not take it: then what was there before stays."""
        try:
            data = written([row])
            # the disk is full; the next run takes the rest of the line away
            if self._file.write(data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(self._file.fileno())
        except OSError as error:
            raise UserError(
                f"{self.path} cannot be written ({error.strerror}); make room and run the same again"
            ) from error
        self.rows.append(row)

    def keep(self, rows: Sequence[Row]) -> None:
        """Only these rows, all at once."""
        self._file.close()
        replace(self.path, written(rows))
        self.rows, self._file = list(rows), self.path.open("ab", buffering=0)

    def close(self) -> None:
        self._file.close()


def parsed(path: Path, data: bytes) -> Iterator[Row]:
    """The rows of whole lines. UserError names a line that is damaged."""
    for number, line in enumerate(data.splitlines(), start=1):
        try:
            yield json.loads(line)
        except ValueError as error:
            raise UserError(
                f"{path} line {number} is damaged; take it away and run again, or use another out=DIR"
            ) from error


def read(out: Path) -> list[Row]:
    """The answers in a folder. UserError when there are none."""
    path = out / "answers.jsonl"
    if not path.is_file():
        raise UserError(f"there are no answers in {out}; give the out=DIR of a batch")
    data = path.read_bytes()
    return list(parsed(path, data[: data.rfind(b"\n") + 1]))


def written(rows: Sequence[Row]) -> bytes:
    """Rows as lines."""
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


def replace(path: Path, data: bytes) -> None:
    """A file that has either its old bytes or these."""
    half = path.with_name(path.name + ".partial")
    with half.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    half.replace(path)


def table(rows: Sequence[Row]) -> pyarrow.Table:
    """Rows as they stand in answers.jsonl, with the columns and types of answers.parquet."""
    return pyarrow.Table.from_pylist(
        [row | {"seconds": list(row["seconds"].items())} for row in rows], schema=SCHEMA
    )


def write_parquet(path: Path, rows: Sequence[Row]) -> None:
    """answers.parquet."""
    half = path.with_name(path.name + ".partial")
    pyarrow.parquet.write_table(table(rows), half)
    half.replace(path)


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """A flat table; nothing when there are no rows."""
    if rows:
        half = path.with_name(path.name + ".partial")
        pyarrow.csv.write_csv(pyarrow.Table.from_pylist(list(rows)), half)
        half.replace(path)
