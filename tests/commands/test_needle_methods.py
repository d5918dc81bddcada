"""The leaderboard of methods as a command: dials are tuned once, and the page has every method."""

from pathlib import Path

import pytest

from encoders.errors import UserError
from memory.storage import json_lines
from pipeline import cli
from tests.support.toys import toy_parts


def go(out: Path, *more: str) -> None:
    settings = [
        "preset=smoke",
        f"out={out}",
        "tasks=[retrieve]",
        "depths=[50]",
        "controls=[last4]",
        "+arms.fewer=[]",
        "+arms.tokens=['prefill=none','reader=tokens','retriever=clip']",
        "+dials.fewer='fps=0.25..1.0'",
        "bank_mb=4.0",
        "+papers.fewer='plain sampling'",
        "threads=1",
        "attention=true",
        "reader.max_new_tokens=4",
        *toy_parts(),
    ]
    assert cli.run("needle", [*settings, *more]) == 0


@pytest.mark.slow  # 10 s of CPU
def test_a_leaderboard_is_made_and_resumes(tmp_path: Path, capsys) -> None:
    go(tmp_path)
    (dial,) = json_lines.read(tmp_path / "dials.jsonl")
    assert dial["arm"] == "fewer" and dial["override"].startswith("fps=")
    configurations = {one["arm"]: one for one in json_lines.read(tmp_path / "configurations.jsonl")}
    fps = {name: one["config"]["fps"] for name, one in configurations.items()}
    assert fps["fused"] == fps["tokens"] == fps["last4"] == 1.0
    assert f"fps={fps['fewer']:.4g}" == dial["override"] and fps["fewer"] < 1.0
    assert configurations["fewer"]["bank"] != configurations["fused"]["bank"]
    assert configurations["last4"]["bank"] == configurations["fused"]["bank"]

    lines = (tmp_path / "leaderboard.md").read_text().splitlines()
    board = {line.split(" | ")[0].strip("| "): line.split(" | ") for line in lines if "n=5" in line}
    assert set(board) == {"fused", "fewer", "tokens", "*control: last4*"}
    sizes = {name: float(cells[4].split()[0]) for name, cells in board.items()}
    assert sizes["fewer"] < sizes["fused"] and sizes["tokens"] < sizes["fused"]
    assert board["fewer"][-1].startswith("plain sampling") and "fps=" in board["fewer"][-2]
    assert "★" in " ".join(board["tokens"]) or "★" in " ".join(board["fewer"])
    assert (tmp_path / "leaderboard.html").read_text().count("<img") == 2
    held = {name: float(cells[3]) for name, cells in board.items()}  # of all attention to frames
    assert 0 < held["*control: last4*"] < held["fused"] <= 100 and held["tokens"] > 0

    rows = (tmp_path / "results.jsonl").read_bytes()
    capsys.readouterr()
    go(tmp_path, "action=run")
    assert (tmp_path / "results.jsonl").read_bytes() == rows
    assert "tuning" not in capsys.readouterr().err


def test_a_dial_of_no_arm_is_refused_and_one_of_a_deleted_arm_is_not(tmp_path: Path) -> None:
    """Had the dial of the deleted arm stayed, the sentence would name it: it sorts first."""
    settings = ["preset=smoke", f"out={tmp_path}", "tasks=[retrieve]", "+dials.fused='fps=0.2..1'"]
    unknown = "+dials.nobody='fps=0.2..1.0'"
    with pytest.raises(UserError, match="dials has 'nobody', which is no arm; name one of arms"):
        cli.run("needle", [*settings, "~arms.fused", unknown])
