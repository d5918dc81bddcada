"""`reelbank batch` of annotation files as benchmarks publish them, from the file to the figures.

Real films, banks, and the embedded model. What the files say is invented.
"""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from PIL import Image

from encoders.sources.pictures import pictures_at
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
    found = answers(out)
    assert figures["accuracy"]["share"] == 1 and found["1"]["evidence_cited"]
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


def frame_of(film_path: Path, second: float, to: Path) -> None:
    """Store what a film shows as a picture."""
    (picture,) = pictures_at(film_path, [second], 192)
    assert picture is not None
    Image.fromarray(picture).save(to)


def clip(start: float, end: float) -> dict[str, str]:
    return {"output_path": f"clips/b/{start:.2f}_{end:.2f}.mp4", "frame_path": "x.png"}


def test_moments_for_a_text_and_for_a_picture(films: Path, tmp_path: Path, run) -> None:
    """MomentSeeker: the right clip of the video is the first, and nothing is answered."""
    frame_of(films / "b.mp4", 4.0, films / "star.png")
    (films / "star.mp4").write_bytes((films / "b.mp4").read_bytes())
    candidates = [clip(0, 2), clip(2, 3), clip(3, 5), clip(5, 8)]
    row = {"qry_text": "a red star", "qry_img_path": "", "qry_video_path": "",
           "candidate_video_list": candidates, "gt_indices": [2]}  # fmt: skip
    rows = [
        row,
        row | {"qry_img_path": "star.png"},
        row | {"qry_video_path": "star.mp4"},
        row | {"qry_img_path": "gone.png"},
    ]
    out = tmp_path / "out"
    words = ask(films, out, "ims.json", rows, "moment_seeker", "action=retrieve", "retriever=clip")
    code, told, error = run(*words)
    figures, found = json.loads(told), list(answers(out).values())
    assert code == 1 and figures["failed"] == 1, error
    by_picture = {row["task"]: row for row in found if row["error"] is None}
    assert set(by_picture) == {"text", "text and image", "text and clip"}
    assert next(one[:2] for one in by_picture["text and image"]["found"]) == [3.0, 5.0]
    assert all(len(row["found"]) == 4 and row["answer"] == "" for row in by_picture.values())
    assert all(row["right"] is None for row in found) and not figures["accuracy"]["n"]
    assert "gone.png" in next(row["error"] for row in found if row["error"])
    scores = {row["id"]: row["metrics"] for row in map(json.loads, (out / "scores.jsonl").open())}
    assert scores[by_picture["text and image"]["id"]]["candidates_recall_at_1"] == 1
    assert 0 <= scores[by_picture["text"]["id"]]["candidates_ap_at_5"] <= 1

    code, _, error = run(*words[:-1], "action=run")
    assert code == 2 and "retrieves=True" in error


def test_moments_of_time_ranges(films: Path, tmp_path: Path, run) -> None:
    """VUE-TR: the moments of a search beside the time ranges."""
    row = {"query_id": 0, "video_id": "b", "duration": SECONDS, "query": STAR, "gt": [[3, 5]],
           "task": "temporal_retrieval", "duration_category": "ultra-short",
           "query_format": "sentence", "query_modality": "vision"}  # fmt: skip
    out = tmp_path / "out"
    code, _, error = run(*ask(films, out, "VUE-TR_ground_truth.json", [row], "vue_tr",
                                 "action=retrieve"))  # fmt: skip
    assert code == 0, error
    (found,) = answers(out).values()
    assert found["found"] and found["spans"] == [found["found"][0][:2]]
    table = pyarrow.parquet.read_table(out / "answers.parquet").to_pylist()
    assert table[0]["found"] == found["found"]


def test_an_answer_at_its_moment(films: Path, tmp_path: Path, run) -> None:
    """StreamingBench's proactive tasks: nothing is said before the star is there."""
    question = {"task_type": "Proactive Output", "question": STAR, "time_stamp": "00:00:00",
                "ground_truth_time_stamp": "00:00:03", "ground_truth_output": "red",
                "required_ability": "x"}  # fmt: skip
    never = question | {"question": WORD, "ground_truth_output": "Alice"}
    rows = [{"video_path": "b.mp4", "questions": [question, never]}]
    out = tmp_path / "out"
    name = "questions_proactive.json"
    code, told, error = run(*ask(films, out, name, rows, "streaming_bench_proactive",
                                 "annotations.prompt={question}"))  # fmt: skip
    assert code == 0, error
    star, word = answers(out).values()
    assert star["in_time"] and star["right"] and star["answer"] == "red"
    assert 2 <= star["answered_at"] <= 5
    # what was never there is never said
    assert (word["answered_at"], word["in_time"], word["right"]) == (None, False, False)
    scores = [row["metrics"] for row in map(json.loads, (out / "scores.jsonl").open())]
    assert {"proactive_in_time": 1.0, "proactive_right": 1.0} in scores
    assert json.loads(told)["accuracy"]["share"] == 0.5
