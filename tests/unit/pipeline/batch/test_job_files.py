"""Job files whose rows are too large or too deep are told by their place, and the rest is read."""

from pathlib import Path

import pytest

from encoders.errors import UserError
from pipeline.batch import job_files
from pipeline.batch.schema import Entry, RejectedRow

GOOD = b'{"video": "a.mp4", "question": "What?"}'


def test_a_row_that_is_too_long_is_told_without_being_read_as_a_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(job_files, "MAX_ROW_BYTES", 1000)
    path = tmp_path / "jobs.jsonl"
    exact = GOOD + b" " * (999 - len(GOOD))
    long = [b"[" + b"1," * 5000, b"x" * 1001, b"y" * 3003, b"z" * 1000]
    path.write_bytes(b"\n".join([GOOD, *long, exact, GOOD, b"x" * 5000]))
    rows = list(job_files.rows(path))
    kinds = [type(row) for row in rows]
    assert kinds == [Entry, *[RejectedRow] * 4, Entry, Entry, RejectedRow]
    assert [row.place for row in rows] == [f"jobs.jsonl line {n}" for n in range(1, 9)]
    assert sum("longer than" in row.why for row in rows if isinstance(row, RejectedRow)) == 5


@pytest.mark.parametrize("name", ["jobs.jsonl", "jobs.json"])
def test_a_row_that_is_too_deep_is_told(tmp_path: Path, name):
    path = tmp_path / name
    path.write_bytes(b"[" * 200_000)
    try:
        told = [row.why for row in job_files.rows(path) if isinstance(row, RejectedRow)]
    except UserError as error:
        told = [str(error)]
    assert len(told) == 1 and "JSON" in told[0]


def test_a_json_file_that_is_too_large_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(job_files, "MAX_JSON_BYTES", 10)
    path = tmp_path / "jobs.json"
    path.write_bytes(b"[" + GOOD + b"]")
    with pytest.raises(UserError, match="write it as"):
        list(job_files.rows(path))
