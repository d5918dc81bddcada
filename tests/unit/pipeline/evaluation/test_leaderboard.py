"""The leaderboard's dials, Pareto fronts and page, and the table of turns, from made-up rows."""

from pathlib import Path
from typing import Any

import pytest

from encoders.errors import UserError
from pipeline.evaluation.needle.methods import leaderboard
from pipeline.evaluation.needle.methods.dials import STEPS, Dial, tune
from pipeline.evaluation.needle.results import turns


def tuned(text: str, target: float, size) -> tuple[str, int]:
    """Where a dial is left, and how often something was measured."""
    measured: list[str] = []

    def measure(override: str) -> float:
        measured.append(override)
        return float(size(float(override.partition("=")[2])))

    return tune(Dial.parse(text), target, measure).override, len(measured)


def test_a_dial_is_moved_to_the_wanted_bytes():
    override, count = tuned("fps=0.1..1.0", 52, lambda fps: 10 + 200 * fps)
    assert abs(10 + 200 * float(override.partition("=")[2]) - 52) < 0.03 * 52 and count <= STEPS
    # fewer bytes with a higher threshold, and not in a straight line
    override, count = tuned("compressor.threshold=0.05..1.5", 52, lambda t: 200 / (1 + 4 * t * t))
    found = float(override.partition("=")[2])
    assert abs(200 / (1 + 4 * found**2) - 52) < 0.2 * 52 and count <= STEPS


def test_a_dial_that_does_not_reach_far_enough_stays_at_its_end():
    assert tuned("fps=0.5..1.0", 10, lambda fps: 100 * fps) == ("fps=0.5", 2)


def test_whole_numbers_are_all_tried():
    assert tuned("compressor.size=1..4", 50, lambda size: 12 * size**2) == ("compressor.size=2", 4)


@pytest.mark.parametrize("text", ["fps", "fps=1", "fps=2..1", "fps=a..b"])
def test_a_range_that_is_none(text):
    with pytest.raises(UserError, match="no range of a setting"):
        Dial.parse(text)


def row(arm: str, film: str, *, right: bool, turn: int = 1, control: str = "", **more: Any):
    return {
        "arm": arm, "film": film, "item": f"{film}-{turn}", "right": right, "options": ["a", "b"],
        "control": control, "turn": turn, "bank": arm, "seconds": {"total": 2.0, "search": 0.5},
        "visual_tokens": 384, "contexts": 1, "kind": "backward",
    } | more  # fmt: skip


def encoding(bank: str, film: str, nbytes: int, new: int = 2):
    return {
        "bank": bank, "film": film, "nbytes": nbytes, "video_seconds": 1800.0, "segments": 2,
        "new_segments": new, "seconds": {"total": 12.0},
    }  # fmt: skip


ROWS = [
    *(row("all", film, right=True) for film in "xyz"),
    *(row("small", film, right=film != "x", attention_held=0.25) for film in "xyz"),
    *(row("worse", film, right=film == "z") for film in "xyz"),
    *(row("last4", film, right=False, control="last4", bank="all") for film in "xyz"),
]
ENCODINGS = [encoding("all", "x", 50_000_000), encoding("small", "x", 5_000_000),
             encoding("worse", "x", 9_000_000), encoding("small", "y", 1, new=1)]  # fmt: skip


def test_the_front_has_what_nothing_beats_on_both_axes(tmp_path: Path):
    board = leaderboard.entries(ROWS, ENCODINGS, {"small": "a paper"}, {"small": "fps=0.5"})
    assert {one.name: one.megabytes for one in board} == {
        "all": 100, "small": 10, "worse": 18, "last4": 100,
    }  # fmt: skip
    assert leaderboard.front(board, "megabytes") == {"all", "small"}
    assert leaderboard.front(board, "seconds") == {"all"}
    leaderboard.write(board, "3 questions", "words", tmp_path)
    lines = (tmp_path / "leaderboard.md").read_text().splitlines()
    (small,) = (line for line in lines if line.startswith("| small"))
    assert "10.0 ★" in small and "a paper" in small and "`fps=0.5`" in small
    assert "-33.3 (-100.0 to +0.0) | 25.0 | 10.0" in small
    assert lines[-1].startswith("| *control: last4*")
    page = (tmp_path / "leaderboard.html").read_text()
    assert "<td>control: last4</td>" in page and "<td>fps=0.5</td>" in page
    assert page.count("<img") == 2 and page.count("<tr>") == 1 + 4 and "http" not in page


def test_turns_share_the_encoding_of_their_film():
    rows = [row("all", "x", right=turn < 3, turn=turn) for turn in (1, 2, 3)]
    lines = [line.strip("| ").split(" | ") for line in turns.table(rows, ENCODINGS)[2:]]
    assert [line[1] for line in lines] == ["1", "2", "3"]
    assert [line[2] for line in lines] == ["100.0, n=1", "100.0, n=1", "0.0, n=1"]
    assert [line[-1] for line in lines] == ["14.00", "8.00", "6.00"]  # 12 s, and 2 s each
    assert turns.table(rows[:1], ENCODINGS) == []
