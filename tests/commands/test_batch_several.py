"""`reelbank batch` with rows about several videos, and about the whole bank.

Real films, banks, and the embedded model.
"""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from tests.support.batches import answers, encoded, put
from tests.support.serving import film

STAR, WORD, CODE = "What color is the star?", "What is the secret word?", "What is the code?"
ROWS: list[dict[str, Any]] = [
    {"id": "bank", "video": "*", "question": WORD, "answer": "Alice"},
    {"id": "two", "video": ["a.mp4", "b.mp4"], "question": STAR, "answer": "red"},
    {"id": "choice", "video": ["a.mp4", "b.mp4"], "question": STAR, "options": "blue|red"}
    | {"answer": "B"},
    {"id": "early", "video": ["a.mp4", "b.mp4"], "question": STAR, "asked_at": 2},
    {"id": "glob", "video": ["[ab].mp4"], "question": CODE},
    {"id": "gone", "video": ["a.mp4", "gone.mp4"], "question": STAR},
    {"id": "one", "video": "c.mp4", "question": WORD, "answer": "Alice"},
    {"id": "part", "video": ["a.mp4", "b.mp4"], "question": STAR, "start": 3},
    {"id": "seconds", "video": "*", "question": STAR, "evidence": [[3, 5]]},
    {"id": "empty", "video": [], "question": STAR},
]
MOMENTS: list[dict[str, Any]] = [
    {"id": "two", "video": ["a.mp4", "b.mp4"], "question": "a red star"}
    | {"evidence": [[3, 5]], "evidence_video": "b.mp4"},
    {"id": "other", "video": ["a.mp4", "b.mp4"], "question": "a red star"}
    | {"evidence": [[3, 5]], "evidence_video": "a.mp4"},
    {"id": "bank", "video": "*", "question": "a red star", "evidence": [[3, 5]]}
    | {"evidence_video": "b.mp4"},
    {"id": "early", "video": "*", "question": "a red star", "asked_at": 2},
    {"id": "far", "video": ["a.mp4", "b.mp4"], "question": "x", "evidence": [[3, 5]]}
    | {"evidence_video": "c.mp4"},
    {"id": "none", "video": "*", "question": "x", "evidence_video": "a.mp4"},
    {"id": "some", "video": "*", "question": "x", "candidates": [[0, 2]]},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    for number, (name, card) in enumerate(
        {"a.mp4": "code:4821@4", "b.mp4": "shape:red star@3", "c.mp4": "name:Alice@4"}.items()
    ):
        film(folder / name, card, seconds=8, seed=number)
    put(folder / "jobs.jsonl", ROWS)
    return folder


def cited(row: dict[str, Any]) -> str:
    """The name of the film that the spans of a row are of."""
    films = {each["video_id"]: each for each in row["videos"]}
    assert {frame["video_id"] for frame in row["cited"]} == set(films)
    assert films[row["video_id"]]["spans"] == row["spans"]
    return Path(films[row["video_id"]]["path"]).name


@pytest.mark.slow
def test_rows_name_several_videos_or_the_bank(folder: Path, tmp_path: Path, run) -> None:
    out = tmp_path / "out"
    ask = ["batch", str(folder / "jobs.jsonl"), "-o", str(out), "--bank", str(folder / "bank")]
    ask.append("batch_size=3")
    code, told, error = run(*ask)
    assert code == 1 and "6 of 7 answered, 1 failed, 3 rows refused" in told
    assert "line 8: start and end are a part of one video" in error
    assert "line 9: evidence is seconds of one video" in error
    assert "line 10: video=[] must be one video or more" in error
    rows = answers(out)
    assert rows["gone"]["error"].count(".") <= 3 and "gone.mp4" in rows["gone"]["error"]
    assert (rows["two"]["answer"], rows["choice"]["choice"]) == ("red", "B")
    assert rows["two"]["right"] and rows["choice"]["right"] and cited(rows["two"]) == "b.mp4"
    assert rows["two"]["video_seconds"] == pytest.approx(16, abs=0.5)
    assert rows["early"]["answer"] == "not in the video" and not rows["early"]["videos"]
    assert rows["glob"]["answer"] == "4821" and cited(rows["glob"]) == "a.mp4"
    # the bank is asked when it holds the videos of all other rows
    assert rows["bank"]["answer"] == "Alice" and cited(rows["bank"]) == "c.mp4"
    assert rows["bank"]["video"] == "*" and list(rows)[-1] == "bank"
    assert not rows["one"]["videos"] and rows["one"]["right"]
    assert sum(one["new_segments"] > 0 for one in encoded(out)) == 3
    table = pyarrow.parquet.read_table(out / "answers.parquet").to_pylist()
    assert {row["id"]: row["videos"] for row in table} == {
        key: row["videos"] for key, row in rows.items()
    }
    lines = (out / "videos.csv").read_text().splitlines()
    assert [sum(f'"{folder / name}"' in line for line in lines) for name in ("a.mp4", "c.mp4")]

    # what has an answer keeps it; what failed or was lost is asked again, with the same outcome
    lost = ("two", "bank", "gone")
    kept = [row for key, row in rows.items() if key not in lost]
    (out / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    (folder / "gone.mp4").write_bytes((folder / "b.mp4").read_bytes())
    try:
        code, told, _ = run(*ask, "format=json")
    finally:
        (folder / "gone.mp4").unlink()
    assert code == 1 and json.loads(told)["answered_by_this_run"] == 3
    again = answers(out)
    assert again["gone"]["answer"] == "red" and cited(again["gone"]) == "b.mp4"
    for name in ("two", "bank"):
        assert again[name] | {"seconds": {}} == rows[name] | {"seconds": {}}


def test_moments_of_several_videos_are_ranked(folder: Path, tmp_path: Path, run) -> None:
    """action=retrieve: a moment counts in the video of the evidence alone."""
    put(folder / "moments.jsonl", MOMENTS)
    out = tmp_path / "out"
    ask = ["batch", str(folder / "moments.jsonl"), "-o", str(out), "--bank", str(folder / "bank")]
    # every frame of such a short film is near the best one, so its moment is the whole film
    ask += ["action=retrieve", "score=[ranking,recall]", "score.ranking.overlap=0"]
    code, told, error = run(*ask)
    assert code == 1 and "4 of 4 answered, 0 failed, 3 rows refused" in told
    assert "line 5: evidence_video=c.mp4 is none of the row's videos" in error
    assert "line 6: evidence_video names the video of the evidence" in error
    assert "line 7: candidates are seconds of one video" in error
    rows = answers(out)
    for name in ("two", "bank"):
        row = rows[name]
        assert row["found_videos"][0] == row["video_id"] == row["evidence_video"]
        assert row["found"][0][0] < 5 and len(row["found"]) == len(row["found_videos"])
        films = {each["video_id"]: Path(each["path"]).name for each in row["videos"]}
        assert films[row["video_id"]] == "b.mp4" and len(films) >= 2
        assert row["spans"] == [row["found"][0][:2]] and row["answer"] == ""
    assert all(one[1] <= 3 for one in rows["early"]["found"]) and not rows["early"]["evidence"]
    scores = {row["id"]: row["metrics"] for row in map(json.loads, (out / "scores.jsonl").open())}
    assert scores["two"]["ranking_recall_at_1"] == scores["bank"]["ranking_recall_at_1"] == 1.0
    assert scores["two"]["recall_cited"] == 1.0 and not scores["early"]
    # the same seconds of the other film: its first moment is of another video than the evidence
    assert rows["other"]["found"] == rows["two"]["found"]
    assert scores["other"]["ranking_recall_at_1"] == scores["other"]["recall_cited"] == 0.0
    table = pyarrow.parquet.read_table(out / "answers.parquet").to_pylist()
    assert {row["id"]: row["found_videos"] for row in table} == {
        key: row["found_videos"] for key, row in rows.items()
    }


def test_the_whole_bank_is_one_bank(folder: Path, tmp_path: Path, run) -> None:
    put(tmp_path / "jobs.jsonl", ROWS[:1])
    ask = ["batch", str(tmp_path / "jobs.jsonl"), "-o", str(tmp_path / "out")]
    ask += ["--bank", str(tmp_path / "bank")]
    code, _, error = run(*ask, "compute.workers=2")
    assert code == 2 and "line 1: a question about the whole bank needs" in error
    code, _, error = run(*ask, "shard=0/2")
    assert code == 2 and "without shard=" in error and not (tmp_path / "out").exists()
    code, told, _ = run(*ask)
    assert code == 1 and "holds no video" in told
    assert "holds no video" in answers(tmp_path / "out")["bank"]["error"]


@pytest.mark.slow
def test_several_processes_answer_about_several_videos(folder: Path, tmp_path: Path, run) -> None:
    put(folder / "some.jsonl", ROWS[1:7])
    out = tmp_path / "out"
    ask = ("batch", str(folder / "some.jsonl"), "-o", str(out), "--bank", str(tmp_path / "bank"))
    code, _, _ = run(*ask, "compute.workers=2")
    rows = answers(out)
    assert code == 1 and rows["two"]["answer"] == "red" and cited(rows["two"]) == "b.mp4"
    assert [key for key, row in rows.items() if row["error"]] == ["gone"]
