"""`reelbank batch` of annotation files as benchmarks publish them, from the file to the figures.

Real films, banks, and the embedded model. What the files say is invented.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.batches import answers
from tests.support.serving import film

STAR, WORD, CODE = "What color is the star?", "What is the secret word?", "What is the code?"
SECONDS = 8


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two films with a card each, which shows for two seconds, and a bank for them."""
    folder = tmp_path_factory.mktemp("films")
    film(folder / "a.mp4", "code:4821@4", seconds=SECONDS, seed=0)
    film(folder / "b.mp4", "shape:red star@3", seconds=SECONDS, seed=1)
    return folder


def ask(films: Path, out: Path, name: str, content: Any, option: str, *more: str) -> list[str]:
    """The command that answers the questions of an annotation file."""
    (out.parent / name).write_text(json.dumps(content))
    words = ["batch", str(out.parent / name), "-o", str(out), "--bank", str(films / "bank")]
    return [*words, f"annotations={option}", f"videos={films}", "format=json", *more]


CG_BENCH = {
    "qid": 1, "video_uid": "b", "question": STAR, "answer": "red", "choices": ["blue", "red"],
    "right_answer": "B", "clue_intervals": [[3, 5]], "domain": "Art", "sub_category": "Entity",
    "duration": SECONDS,
}  # fmt: skip


def test_a_table_with_options_and_clues(films: Path, tmp_path: Path, run) -> None:
    """CG-Bench: accuracy, and whether the citations meet the clue intervals."""
    rows = [CG_BENCH, CG_BENCH | {"qid": 2, "video_uid": "gone"},
            CG_BENCH | {"qid": 3, "clue_intervals": [[30, 40]]}]  # fmt: skip
    out = tmp_path / "out"
    code, told, error = run(*ask(films, out, "cgbench_mini.json", rows, "cg_bench"))
    figures = json.loads(told)
    assert code == 1 and "refused cgbench_mini.json entry 3: evidence=[30.0, 40.0]" in error
    assert figures["accuracy"]["share"] == 1 and figures["evidence_cited"]["share"] == 1
    found = answers(out)
    assert (found["1"]["choice"], found["1"]["right"]) == ("B", True)
    assert "gone.mp4" in found["2"]["error"]


def test_subtitles_and_the_words_that_refer(films: Path, tmp_path: Path, run) -> None:
    """LongVideoBench: its subtitles count from the second at which the film begins in them."""
    subtitles = [
        {"timestamp": [26.0, 28.0], "text": "long before"},
        {"timestamp": [31.0, 33.0], "text": "the shipwright builds"},
        {"start": "00:00:35.000", "end": "00:00:37.000", "line": "a caravel of oak"},
    ]
    folder = films / "subtitles"
    folder.mkdir()
    (folder / "a_en.json").write_text(json.dumps(subtitles))
    (films / "videos").mkdir()
    (films / "videos" / "a.mp4").write_bytes((films / "a.mp4").read_bytes())
    row = {
        "id": "a_0", "video_id": "a", "video_path": "a.mp4", "subtitle_path": "a_en.json",
        "question": "What is the code while the shipwright builds?",
        "question_wo_referring_query": CODE, "candidates": ["1234", "4821"], "correct_choice": 1,
        "question_category": "T2A", "duration_group": 15, "duration": SECONDS,
        "starting_timestamp_for_subtitles": 30,
    }  # fmt: skip
    out = tmp_path / "out"
    code, told, error = run(
        *ask(films, out, "lvb_val.json", [row], "long_video_bench", "text=[subtitles]")
    )
    assert code == 0, error
    assert json.loads(told)["per_duration"]["15"]["n"] == 1
    words = ["--bank", str(films / "bank"), "--json", "channels=[subtitle]"]
    code, told, _ = run("find", "caravel", *words)
    (moment,) = json.loads(told)["moments"]
    line = {"start": 5.0, "end": 7.0, "kind": "subtitle", "text": "a caravel of oak"}
    assert code == 0 and moment["lines"][0].items() >= line.items()
    code, told, _ = run("find", "before", *words)
    assert code == 0 and json.loads(told)["moments"] == []
