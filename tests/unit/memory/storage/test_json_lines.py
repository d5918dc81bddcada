"""A JSONL file after a process was killed in the middle of a line, and on a full disk."""

from pathlib import Path

import pytest

from encoders.errors import UserError
from memory.storage import json_lines
from memory.storage.json_lines import JsonLines


@pytest.mark.parametrize("durable", [False, True])
def test_a_cut_last_line_is_removed_and_damage_is_reported(tmp_path, durable):
    path = tmp_path / "answers.jsonl"
    path.write_bytes(b'{"id": "1"}\n{"id": "2", "answ')
    assert json_lines.read(path) == [{"id": "1"}]
    lines = JsonLines(path, durable=durable)
    assert lines.rows == [{"id": "1"}]
    lines.append({"id": "2", "answer": "ü\n\u2028"})
    lines.close()
    assert path.read_bytes().count(b"\n") == 2
    assert JsonLines(path).rows == [{"id": "1"}, {"id": "2", "answer": "ü\n\u2028"}]
    path.write_bytes(b'{"id": \n{"id": "2"}\n')
    with pytest.raises(UserError, match="line 1 is damaged"):
        JsonLines(path)


def test_rows_are_replaced_and_appended_to(tmp_path):
    lines = JsonLines(tmp_path / "rows.jsonl", ascii_only=True)
    for number in range(3):
        lines.append({"n": number})
    lines.replace_rows(lines.rows[1:])
    lines.append({"n": "ü"})
    lines.close()
    assert lines.path.read_bytes() == b'{"n": 1}\n{"n": 2}\n{"n": "\\u00fc"}\n'
    assert json_lines.read(lines.path) == lines.rows == [{"n": 1}, {"n": 2}, {"n": "ü"}]
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


def test_a_file_that_is_not_there_has_no_rows(tmp_path):
    assert json_lines.read(tmp_path / "rows.jsonl") == []
    assert not (tmp_path / "rows.jsonl").exists()


def test_a_full_disk_is_one_sentence():
    lines = JsonLines(Path("/dev/full"))
    with pytest.raises(UserError, match=r"/dev/full cannot be written .* make room"):
        lines.append({"id": "1"})
    assert lines.rows == []
