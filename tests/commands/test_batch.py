"""`reelbank batch` from end to end, with real files, banks, and models.

Covers: each video is encoded once, each id answered once, failures become rows, tables, resuming
after kill -9, several processes, comparing. No assertion depends on the moment of a kill.
"""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from memory.bank import MemoryBank
from memory.retrieval.uniform import UniformRetriever
from pipeline import cli
from pipeline.batch.compare import Scored, as_text, compare
from pipeline.batch.run_folder import RunFolder
from tests.support import films
from tests.support.batches import (
    answers,
    command,
    encoded,
    jobs,
    kill_after,
    lines,
    overrides,
    put,
    run,
    same,
)
from tests.support.paths import ROOT
from tests.support.toys import toy_parts
from tests.support.videos import write_video

VIDEOS, SECONDS, ASKED = 3, 12, 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three videos and nine questions, a third of them with options."""
    path = tmp_path_factory.mktemp("batch")
    rows = []
    for number in range(VIDEOS):
        write_video(path / f"{number}.mp4", SECONDS + number, 5)
        for question in range(ASKED):
            row = {
                "id": f"{number}-{question}",
                "video": f"{number}.mp4",
                "question": f"What is {question}?",
                "task": f"t{question}",
            }
            rows.append(
                row
                | (
                    {"options": ["red", "blue"], "answer": "A"}
                    if question == 0
                    else {"answer": "red"}
                )
            )
    put(path / "jobs.jsonl", rows)
    return path


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def whole(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nobody disturbed."""
    out = tmp_path_factory.mktemp("whole") / "out"
    assert run(folder, out) == 0
    return out


def test_every_question_is_answered_and_every_video_encoded_once(folder, whole):
    found = answers(whole)
    # grouped by video, in the order of the file
    assert list(found) == [row["id"] for row in jobs(folder)]
    for row in found.values():
        assert (
            row["error"] is None
            and row["answer"]
            and row["seconds"]["total"] > 0
            and row["visual_tokens"] > 0
        )
        assert row["spans"] and all(span[0] < span[1] for span in row["spans"]) and row["bank_id"]
        # what is cited was read
        read = row["recalled"]
        assert all(any(a <= span[0] and span[1] <= b for a, b in read) for span in row["spans"])
        assert (row["evidence"], row["accepted"], row["rule"]) == ([], [], "")
        assert (
            (row["choice"] in "AB" and len(row["scores"]) == 2)
            if row["options"]
            else row["choice"] is None
        )
        assert row["right"] == (
            (row["choice"] if row["options"] else row["answer"]) == row["truth"]
        )
    passes = encoded(whole)
    assert [Path(one["video"]).name for one in passes] == ["0.mp4", "1.mp4", "2.mp4"]
    with MemoryBank.open(
        whole.parent / "bank", None, UniformRetriever(), recent_frames=0, create=False
    ) as bank:
        for one in passes:
            assert (
                one["new_segments"] == len(bank.catalog.segments(one["video_id"])) > 0
                and bank.catalog.video(one["video_id"]).finished
            )


def test_the_tables_say_what_the_rows_say(folder, whole):
    found = answers(whole)
    told = {
        row["id"]: row for row in pyarrow.parquet.read_table(whole / "answers.parquet").to_pylist()
    }
    metrics = {key: dict(row.pop("metrics")) for key, row in told.items()}
    assert {key: row | {"seconds": dict(row["seconds"])} for key, row in told.items()} == found
    assert all(metrics.values())  # see test_score.py
    rows = table(whole / "videos.csv")
    assert [
        (int(row["questions"]), int(row["failed"]), int(row["times_encoded"])) for row in rows
    ] == [(ASKED, 0, 1)] * VIDEOS
    figures = json.loads((whole / "run.json").read_text())
    right = sum(row["right"] for row in found.values())
    assert (
        figures["state"] == "finished"
        and figures["answered"] == figures["accuracy"]["n"] == VIDEOS * ASKED
    )
    assert figures["accuracy"]["share"] == pytest.approx(right / len(found))
    assert figures["accuracy"]["low"] <= figures["accuracy"]["share"] <= figures["accuracy"]["high"]
    assert {name: some["n"] for name, some in figures["per_task"].items()} == {
        f"t{i}": VIDEOS for i in range(ASKED)
    }
    assert figures["per_duration"]["under 2 min"]["n"] == VIDEOS * ASKED
    assert figures["settings"]["fps"] == 1.0 and figures["configuration"]["jobs"] == str(
        folder / "jobs.jsonl"
    )
    assert figures["versions"]["torch"] and "revision" in figures


def test_a_second_run_loads_no_model_and_answers_nothing_again(folder, whole, capsys):
    before = {
        name: (whole / name).read_bytes()
        for name in ("answers.jsonl", "videos.jsonl", "answers.parquet")
    }
    assert run(folder, whole, "format=json") == 0
    assert json.loads(capsys.readouterr().out)["answered_by_this_run"] == 0
    assert {name: (whole / name).read_bytes() for name in before} == before


def test_the_bank_outlives_the_job(folder, whole, tmp_path):
    """Another run on the same bank encodes nothing and says the same."""
    again = tmp_path / "out"
    assert cli.run("batch", [*overrides(folder, again), f"bank={whole.parent / 'bank'}"]) == 0
    assert [one["new_segments"] for one in encoded(again)] == [0] * VIDEOS
    assert same(answers(again), answers(whole))


def test_bad_rows_and_bad_videos_do_not_stop_the_rest(folder, tmp_path, capsys):
    (tmp_path / "text.mp4").write_text("this is no video\n" * 50)
    whole_file = (folder / "1.mp4").read_bytes()
    (tmp_path / "half.mp4").write_bytes(whole_file[: len(whole_file) // 2])
    (tmp_path / "0.mp4").write_bytes((folder / "0.mp4").read_bytes())
    rows = [
        {"id": "text", "video": "text.mp4", "question": "q"},
        {"id": "gone", "video": "gone.mp4", "question": "q"},
        {"id": "half", "video": "half.mp4", "question": "q"},
        {"id": "early", "video": "0.mp4", "question": "q", "end": 0.01, "start": 0.001},
        {"id": "twice", "video": "0.mp4", "question": "good"},
        {"id": "twice", "video": "0.mp4", "question": "bad"},
        {"id": "none", "question": "q"},
    ]
    put(tmp_path / "jobs.jsonl", rows)
    assert run(tmp_path, tmp_path / "out") == 1
    out, err = capsys.readouterr()
    assert (
        "refused jobs.jsonl line 6: id twice" in err
        and "refused jobs.jsonl line 7: the column video is missing" in err
    )
    assert "1 of 5 answered, 4 failed, 2 rows refused" in out
    found = answers(tmp_path / "out")
    words = {
        "text": "not a video",
        "gone": "no file",
        "half": "incomplete",
        "early": "no frame between",
    }
    assert all(words[key] in found[key]["error"] and found[key]["answer"] is None for key in words)
    assert found["twice"]["error"] is None and found["twice"]["answer"]
    figures = json.loads((tmp_path / "out" / "run.json").read_text())
    assert {one["id"] for one in figures["failures"]} == set(words) and len(figures["refused"]) == 2
    assert [
        row["failed"]
        for row in table(tmp_path / "out" / "videos.csv")
        if row["video"].endswith("gone.mp4")
    ] == ["1"]
    # what failed is tried again, what was answered is not
    (tmp_path / "gone.mp4").write_bytes((folder / "2.mp4").read_bytes())
    assert run(tmp_path, tmp_path / "out") == 1
    again = answers(tmp_path / "out")
    assert again["gone"]["answer"] and again["text"]["error"] and again["twice"] == found["twice"]


REFUSED = {
    "strict": (["strict=true"], "strict.jsonl line 10: the column video is missing"),
    "no jobs": (["jobs=gone.jsonl"], "There is no file gone.jsonl"),
    "an action": (["action=nix"], "action=nix"),
    "a shard": (["shard=4/4"], "shard=4/4"),
    "workers": (["compute.workers=0"], "compute.workers=0"),
    "devices": (["compute.devices=cuda"], "compute.devices=cuda"),
    "a choice": (["choice.candidate=nix"], "choice.candidate=nix"),
    "a choice's key": (["+choice.nix=1"], "choice.nix"),
    "a reader": (["annotations=nix"], "use one of"),
    "one run": (["action=compare", "runs=[a]"], "takes two runs"),
    "no run": (["action=compare", "runs=[gone,gone]"], "no answers in gone"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_mistake_is_one_sentence_and_leaves_nothing(folder, tmp_path, name, capsys):
    more, words = REFUSED[name]
    put(tmp_path / "strict.jsonl", [*jobs(folder), {"id": "none", "question": "q"}])
    given = [
        f"jobs={tmp_path / 'strict.jsonl'}",
        f"out={tmp_path / 'out'}",
        f"bank={tmp_path / 'bank'}",
    ]
    with pytest.raises(SystemExit) as done:
        cli.main(["batch", *given, *more])
    err = capsys.readouterr().err
    assert done.value.code == 2 and err.startswith("reelbank: ") and words in err
    assert not (tmp_path / "bank").exists() and not (tmp_path / "out").exists()


def test_answers_of_other_settings_or_other_questions_are_not_mixed(
    folder, whole, tmp_path, capsys
):
    def refused(*arguments: str) -> str:
        with pytest.raises(SystemExit) as done:
            cli.main(["batch", *overrides(folder, whole), *arguments])
        assert done.value.code == 2
        return capsys.readouterr().err

    before = (whole / "answers.jsonl").read_bytes()
    assert "were made with cite_share=0.4 (this run: 0.9)" in refused("cite_share=0.9")
    changed = [
        row | {"question": "Another?"} if row["id"] == "1-1" else row for row in jobs(folder)
    ]
    put(tmp_path / "jobs.jsonl", changed)
    assert "id 1-1 (jobs.jsonl line 5) has an answer" in refused(
        f"jobs={tmp_path / 'jobs.jsonl'}", f"videos={folder}"
    )
    with RunFolder(whole).lock():
        assert "another run is writing" in refused()
    assert (whole / "answers.jsonl").read_bytes() == before


def test_rows_that_moved_and_new_rows(folder, whole, tmp_path):
    """A job file may grow: only what is new is asked."""
    out = tmp_path / "out"
    rows = jobs(folder)
    put(tmp_path / "jobs.jsonl", rows[:4])
    given = [f"videos={folder}", f"bank={whole.parent / 'bank'}"]
    assert run(tmp_path, out, *given) == 0
    first = (out / "answers.jsonl").read_bytes()
    put(tmp_path / "jobs.jsonl", rows[::-1])
    assert run(tmp_path, out, *given) == 0
    assert (out / "answers.jsonl").read_bytes().startswith(first)
    assert same(answers(out), answers(whole))


def test_parts_of_a_video_and_moments(folder, tmp_path):
    """start and end make a video of their own in the bank; nothing after asked_at is read."""
    rows = [
        {"id": "part", "video": "0.mp4", "question": "q", "start": 2, "end": 8},
        {"id": "early", "video": "0.mp4", "question": "q", "asked_at": "00:05"},
        {"id": "too early", "video": "0.mp4", "question": "q", "asked_at": -0.0, "start": 3},
    ]
    put(tmp_path / "jobs.jsonl", rows)
    assert run(tmp_path, tmp_path / "out", f"videos={folder}") == 1
    found = answers(tmp_path / "out")
    assert found["part"]["video_id"].endswith("-from-2-to-8") and found["part"]["frames_read"] == 6
    assert (
        found["early"]["frames_read"] == 6 and max(end for _, end in found["early"]["spans"]) <= 6
    )
    assert "before the first frame" in found["too early"]["error"]


def test_an_answer_by_rule_names_its_option(tmp_path):
    """answer=map_reduce counts without a choice: what it says is looked up among the options."""
    write_video(tmp_path / "0.mp4", 8, 5)
    row = {"video": "0.mp4", "question": "How many dogs are there?", "answer": "B"}
    put(
        tmp_path / "jobs.jsonl",
        [row | {"id": "a", "options": ["3", "0"]}, row | {"id": "b", "options": ["3", "4"]}],
    )
    given = [*overrides(tmp_path, tmp_path / "out"), *toy_parts(says="not in the video")]
    assert cli.run("batch", [*given, "answer=map_reduce"]) == 0
    rows = answers(tmp_path / "out")
    assert [(rows[one]["answer"], rows[one]["choice"]) for one in "ab"] == [("0", "B"), ("0", None)]
    assert [rows[one]["right"] for one in "ab"] == [True, False]


def test_parsing_counts_what_names_no_option(folder, whole, tmp_path):
    """The toy model says nothing that is an option."""
    put(tmp_path / "jobs.jsonl", [row for row in jobs(folder) if "options" in row])
    given = [
        f"videos={folder}",
        f"bank={whole.parent / 'bank'}",
        "option_choice=parse",
        *toy_parts(says="star"),
    ]
    assert (
        cli.run(
            "batch", [*overrides(tmp_path, tmp_path / "out"), *given, f"bank={tmp_path / 'bank'}"]
        )
        == 0
    )
    figures = json.loads((tmp_path / "out" / "run.json").read_text())
    assert (
        figures["unparsed"] == figures["accuracy"]["n"] == VIDEOS
        and figures["accuracy"]["share"] == 0
    )
    assert {row["answer"] for row in answers(tmp_path / "out").values()} == {"star"}


@pytest.mark.slow
def test_several_processes_give_what_one_gives(folder, whole, tmp_path):
    """Each with a bank of its own; later one process finds every video in whichever bank it is."""
    out = tmp_path / "out"
    assert run(folder, out, "compute.workers=2", "threads=1") == 0
    assert same(answers(out), answers(whole), "bank")
    assert sum(one["new_segments"] > 0 for one in encoded(out)) == VIDEOS
    banks = {one["bank"] for one in encoded(out)}
    assert banks <= {str(tmp_path / "bank"), str(tmp_path / "bank.1")}
    assert (
        cli.run("batch", [*overrides(folder, tmp_path / "again"), f"bank={tmp_path / 'bank'}"]) == 0
    )
    assert [one["new_segments"] for one in encoded(tmp_path / "again")] == [0] * VIDEOS
    assert same(answers(tmp_path / "again"), answers(out))


def test_two_runs_side_by_side():
    def row(
        ident: str, video: str, right: bool | None, task: str = "t", job: str = "j"
    ) -> dict[str, Any]:
        return {"id": ident, "video": video, "right": right, "task": task, "job": job}

    first = [row(str(i), f"v{i % 3}", i % 2 == 0, f"t{i % 2}") for i in range(12)]
    second = [row(str(i), f"v{i % 3}", i != 4, f"t{i % 2}") for i in range(13)]
    found = compare(first, second)
    assert found["all"]["difference"] == pytest.approx(5 / 12) and (
        found["all"]["wins"],
        found["all"]["losses"],
    ) == (6, 1)
    assert found["all"]["low"] <= found["all"]["difference"] <= found["all"]["high"]
    assert found["won"] == ["1", "11", "3", "5", "7", "9"] and found["lost"] == ["4"]
    assert (
        found["per_task"]["t0"]["difference"] == pytest.approx(-1 / 6) and found["only_second"] == 1
    )
    with pytest.raises(Exception, match="stands for two different questions"):
        compare(first, [row("0", "v0", True, job="k")])
    with pytest.raises(Exception, match="no question in common"):
        compare(first, [row("0", "v0", None)])


def test_scores_of_two_runs_side_by_side():
    """Each score in pairs, clustered by video; what the runs score by other rules is left out."""

    def run_of(values: list[float], **other: Any) -> tuple[list[dict[str, Any]], Scored]:
        rows = [
            {"id": str(i), "video": f"v{i % 2}", "right": None, "task": "t", "job": "j"}
            for i in range(len(values))
        ]
        scored = [
            {"id": str(i), "job": "j", "metrics": {"f1": value, "judge_score": 4.0, "exact": 1.0}}
            for i, value in enumerate(values)
        ]
        columns = {"f1": {"best": 1.0}, "judge_score": {"best": 5.0}, "exact": {"best": 1.0}}
        nodes = {"f1": {"_target_": "f"}, "judge": {"_target_": "j"}, "exact": {"a": 1} | other}
        return rows, Scored(scored, {"score": nodes, "scores": columns})

    first, one = run_of([0.5, 0.25, 0.5, 0.25])
    second, two = run_of([1.0, 0.25, 0.5, 0.0], a=2)
    found = compare(first, second, (one, two))
    assert found["all"] == {"n": 0} and found["scored_differently"] == ["exact"]
    every = found["scores"]["f1"]["all"]
    assert (every["difference"], every["wins"], every["losses"], every["n"]) == (0.0625, 1, 1, 4)
    # two videos, by whose differences alone the interval goes: +0.25 and -0.125
    assert (every["low"], every["high"]) == (-0.125, 0.25)
    text = as_text(found, "a", "b")
    assert "f1: 43.8 less 37.5 is +6.2 (-12.5 to +25.0), 1 won, 1 lost, n=4" in text
    assert "judge_score (0-5): 4.00 less 4.00 is +0.00" in text
    assert "left out: exact, which the runs score with different settings" in text


def test_comparing_by_the_command(folder, whole, capsys):
    assert cli.run("batch", ["action=compare", f"runs=[{whole},{whole}]"]) == 0
    out = capsys.readouterr().out
    assert "is +0.0 (+0.0 to +0.0), 0 won, 0 lost, n=9" in out
    assert "choice: " in out and "exact: " in out and "left out" not in out


@pytest.mark.slow  # seconds of CPU
def test_shards_are_joined_into_what_one_run_gives(folder, whole, tmp_path, capsys):
    bank = f"bank={whole.parent / 'bank'}"  # has the videos already
    parts = [tmp_path / "a", tmp_path / "b"]
    for number, out in enumerate(parts):
        assert run(folder, out, bank, f"shard={number}/2") == 0
    assert all(answers(out) for out in parts)
    given = ["action=join", f"runs=[{parts[0]},{parts[1]}]"]
    assert cli.run("batch", [*given, f"out={tmp_path / 'all'}"]) == 0
    assert "9 of 9 answered" in capsys.readouterr().out
    assert (
        same(answers(tmp_path / "all"), answers(whole)) and len(encoded(tmp_path / "all")) == VIDEOS
    )
    one, other = (json.loads((out / "run.json").read_text()) for out in (tmp_path / "all", whole))
    assert {key: one[key] for key in ("accuracy", "per_task", "settings", "asked")} == {
        key: other[key] for key in ("accuracy", "per_task", "settings", "asked")
    }
    assert sorted(row["video"] for row in table(tmp_path / "all" / "videos.csv")) == [
        str(folder / f"{i}.mp4") for i in range(3)
    ]
    assert {path.name for path in (tmp_path / "all").iterdir()} == {
        path.name for path in whole.iterdir()
    }
    # what is joined can be gone on with
    assert run(folder, tmp_path / "all", bank, "format=json") == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["answered_by_this_run"] == 0

    def refused(*arguments: str) -> str:
        with pytest.raises(SystemExit) as done:
            cli.main(["batch", "action=join", *arguments])
        assert done.value.code == 2 and not (tmp_path / "none").exists()
        return capsys.readouterr().err

    none = f"out={tmp_path / 'none'}"
    assert "holds answers already" in refused(given[1], f"out={tmp_path / 'all'}")
    assert "two runs or more, not 1" in refused(f"runs=[{parts[0]}]", none)
    assert "one run twice" in refused(f"runs=[{parts[0]},{parts[0]}]", none)
    assert "there is no run in" in refused(f"runs=[{parts[0]},{tmp_path}]", none)
    changed = json.loads((parts[1] / "run.json").read_text())
    changed["settings"]["fps"] = 2.0
    (parts[1] / "run.json").write_text(json.dumps(changed))
    assert "were made with fps=1.0 and 2.0" in refused(given[1], none)


# ---- kill -9


def grown(path: Path, before: int) -> bool:
    return lines(path) > before


@pytest.mark.slow
def test_killed_in_the_middle_and_resumed(folder, whole, tmp_path):
    out = tmp_path / "out"
    process = command(folder, out)
    assert kill_after(process, lambda: lines(out / "answers.jsonl") >= 2, 0.0)
    assert 2 <= lines(out / "answers.jsonl") < VIDEOS * ASKED
    assert run(folder, out) == 0
    assert same(answers(out), answers(whole), "bank")


@pytest.mark.slow
def test_a_worker_that_dies_is_replaced(folder, whole, tmp_path):
    """What it was at is tried once more, by a new one that takes over its bank."""
    out = tmp_path / "out"
    process = command(folder, out, "compute.workers=2", "threads=1")
    while process.poll() is None and not grown(out / "answers.jsonl", 0):
        time.sleep(0.005)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    workers = [
        int(child)
        for child in children
        if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]
    assert len(workers) == 2
    os.kill(workers[0], signal.SIGKILL)
    assert process.wait() == 0
    assert same(answers(out), answers(whole), "bank")


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("workers", [1, 2])
def test_killed_twenty_times_at_random(tmp_path, workers):
    """With the embedded model and films of half a minute, each kill lands between load and last
    answer.
    """
    films.make(tmp_path, 5, 30.0, 8, size=(192, 108))

    def start(out: Path, bank: str) -> subprocess.Popen[bytes]:
        words = [
            f"jobs={tmp_path / 'jobs.jsonl'}",
            f"out={out}",
            f"bank={tmp_path / bank}",
            f"compute.workers={workers}",
        ]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
        return subprocess.Popen(
            [sys.executable, "-m", "pipeline.cli", "batch", *words],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.DEVNULL,
        )

    assert start(tmp_path / "whole", "bank-of-whole").wait() == 0
    rng, kills, rounds = random.Random(workers), 0, 0
    # a round is a job that is killed until it comes to its end, however fast the machine is
    while kills < 20:
        out, bank, rounds = tmp_path / f"out-{rounds}", f"bank-{rounds}", rounds + 1
        while kills < 20:
            process = start(out, bank)
            moment = rng.random()
            if moment < 0.2:  # while it loads, or encodes the first thing
                killed = kill_after(process, (out / "run.json").exists, rng.uniform(0, 4))
            else:  # right behind the next row: of an answer, or of a video
                path = out / ("videos.jsonl" if moment < 0.4 else "answers.jsonl")
                killed = kill_after(
                    process, partial(grown, path, lines(path)), rng.uniform(0, 0.05)
                )
            kills += killed
            if not killed:
                assert process.returncode == 0
                break
        # the workers of a run that was killed hold the bank for a moment longer
        assert 0 in (start(out, bank).wait() for _ in range(3))
        assert same(answers(out), answers(tmp_path / "whole"), "bank")
    print(
        f"\n{kills} kills in {rounds} rounds, {workers} workers, {len(answers(out))} answers "
        "identical in each"
    )
