"""Scores of a batch from end to end: files, table, scoring again, and a judge that fails in every
way. Toy models answer; judges are real servers, a strict one of tests and our own.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from pipeline import cli
from pipeline.batch.scores.score_rows import score_rows
from tests.support.batches import answers, put, run
from tests.support.chat_server import MODEL, Asked, ChatServer, Reply, chat_server
from tests.support.serving import serving
from tests.support.toys import toy_parts
from tests.support.videos import write_video

NAMES = "key busy broken silent cut nonsense dictionary range empty refusal fine".split()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two films, each with open questions, one with options, and a pair of claims."""
    path = tmp_path_factory.mktemp("score")
    rows: list[dict[str, Any]] = []
    for film in ("a", "b"):
        write_video(path / f"{film}.mp4", 8, 5)
        rows += [
            {"id": f"{film}-open", "video": f"{film}.mp4", "question": "What is it?",
             "answer": "red", "accepted": ["crimson"], "evidence": [[2, 5]], "category": "open"},
            {"id": f"{film}-true", "video": f"{film}.mp4", "question": "Is it red?", "pair": film,
             "options": ["TRUE", "FALSE"], "answer": "TRUE"},
            {"id": f"{film}-false", "video": f"{film}.mp4", "question": "Is it blue?", "pair": film,
             "options": ["TRUE", "FALSE"], "answer": "FALSE"},
        ]  # fmt: skip
    put(path / "jobs.jsonl", rows)
    return path


@pytest.fixture(scope="module")
def whole(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("scored") / "out"
    assert run(folder, out) == 0
    return out


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with chat_server(answer=lambda asked: Reply("{'pred': 'no', 'score': 2}")) as running:
        yield running
        assert running.mistakes == []


def scores(out: Path) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in map(json.loads, (out / "scores.jsonl").open())}


def judge(url: str, cache: Path, *more: str) -> list[str]:
    return [f"score.judge.model.url={url}", "score.judge.model.retry_s=0.01",
            f"score.judge.cache={cache}", *more]  # fmt: skip


def rescore(out: Path, *more: str) -> int:
    return cli.run("batch", ["action=score", f"out={out}", *more])


def test_a_run_scores_what_its_rows_allow(folder, whole):
    found = scores(whole)
    assert found.keys() == answers(whole).keys()
    row = found["a-open"]
    assert set(row["metrics"]) == {
        "exact", "recall_recalled", "recall_cited",
        "citation_precision", "citation_recall", "citation_f1",
    }  # fmt: skip
    assert row["metrics"]["recall_recalled"] == 1.0  # the film is short: all of it was read
    # a number of both claims stands at the first of them
    claims = [set(found[name]["metrics"]) for name in ("a-false", "a-true")]
    assert claims == [{"choice", "pair"}, {"choice"}]
    rows = pyarrow.parquet.read_table(whole / "answers.parquet").to_pylist()
    assert {row["id"]: dict(row["metrics"]) for row in rows} == {
        name: row["metrics"] for name, row in found.items()
    }
    figures = json.loads((whole / "run.json").read_text())["scores"]
    assert figures["pair"]["all"]["n"] == 2 and figures["exact"]["per_category"]["open"]["n"] == 2
    for one in figures.values():
        assert one["all"]["low"] <= one["all"]["mean"] <= one["all"]["high"]


def test_scoring_again_asks_nothing(folder, whole, capsys, monkeypatch):
    before = (whole / "answers.jsonl").read_bytes()
    first = (whole / "scores.jsonl").read_bytes()
    monkeypatch.setattr("pipeline.build.build_backbone", None)  # no model is loaded
    assert rescore(whole, "score=[f1,rouge_l]") == 0
    out = capsys.readouterr().out
    assert "6 of 6 answered" in out and "f1" in out and "rouge_l" in out
    assert set(scores(whole)["a-open"]["metrics"]) == {"f1", "rouge_l"}
    assert json.loads((whole / "run.json").read_text())["scores"].keys() == {"f1", "rouge_l"}
    # without scorers, those that the folder was scored with last
    assert rescore(whole) == 0 and set(scores(whole)["a-open"]["metrics"]) == {"f1", "rouge_l"}
    assert rescore(whole, "annotations=table") == 0
    assert (whole / "scores.jsonl").read_bytes() == first
    assert (whole / "answers.jsonl").read_bytes() == before
    # and so does the same run with other scorers
    assert run(folder, whole, "score=[]", "format=json") == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["answered_by_this_run"] == 0 and told["scores"] == {}
    assert run(folder, whole) == 0 and (whole / "scores.jsonl").read_bytes() == first


REFUSED = {
    "score=[nix]": "score=nix is not there; use one of",
    "score=[judge]": "score.judge.model.url= needs the address of a server",
    "score=[judge] score.judge.reply=nix": "score.judge.reply=nix is not known",
    "score=[judge] score.judge.prompt=x": "score.judge.prompt= has no {question}",
    "score=[judge] score.judge.model.tries=0": "score.judge.model.tries=0 does not fit",
    "score=[iou] score.iou.pick=nix": "pick=nix of an IoU is not known",
    "score=[iou] score.iou.nix=1": "nix",
}


@pytest.mark.parametrize("line", REFUSED)
def test_a_mistake_is_one_sentence_before_anything_is_asked(folder, tmp_path, line, capsys):
    words = [f"jobs={folder / 'jobs.jsonl'}", f"out={tmp_path / 'out'}", *line.split()]
    with pytest.raises(SystemExit) as end:
        cli.main(["batch", *words])
    error = capsys.readouterr().err.strip()
    assert end.value.code == 2 and "\n" not in error and not (tmp_path / "out").exists()
    assert REFUSED[line].split(",")[0] in error


def test_a_folder_without_a_run_and_a_strangers_scorer_are_refused(whole, tmp_path, capsys):
    def refusal(*words: str) -> str:
        with pytest.raises(SystemExit) as end:
            cli.main(["batch", "action=score", *words])
        assert end.value.code == 2
        return capsys.readouterr().err

    assert "there is no run in" in refusal(f"out={tmp_path}")
    record = json.loads((whole / "run.json").read_text())
    changed = tmp_path / "changed"
    changed.mkdir()
    record["score"] = {"x": {"_target_": "os.system", "command": "true"}}
    (changed / "run.json").write_text(json.dumps(record))
    (changed / "answers.jsonl").write_bytes((whole / "answers.jsonl").read_bytes())
    assert "run.json names os.system, which no option of score= does" in refusal(f"out={changed}")
    assert rescore(changed, "score=[exact]") == 0


# ---- judges


def test_a_judge_is_asked_once_and_its_words_are_kept(
    folder, whole, server: ChatServer, tmp_path, capsys
):
    line = ["score=[exact,judge]", *judge(server.url, tmp_path / "cache")]
    assert rescore(whole, *line) == 0
    out = capsys.readouterr().out
    assert "judge_score (0-5)" in out and "2.00 (2.00-2.00), n=2" in out
    row = scores(whole)["a-open"]
    assert row["metrics"] == {"exact": 0.0, "judge_right": 0.0, "judge_score": 2.0}
    kept = row["judgements"]["judge"]
    given = answers(whole)["a-open"]["answer"]
    assert kept["model"] == MODEL and kept["reply"] == "{'pred': 'no', 'score': 2}"
    assert "Question: What is it?\nCorrect Answer: red\ncrimson\n" in kept["prompt"]
    assert f"Predicted Answer: {given}\n" in kept["prompt"]
    # questions with options are not judged, and equal answers to equal questions only once
    assert len(server.asked) <= 2 and {asked.body["temperature"] for asked in server.asked} == {0.0}
    asked = len(server.asked)
    assert rescore(whole, *line) == 0 and len(server.asked) == asked
    assert rescore(whole, *line, "score.judge.max_tokens=32") == 0 and len(server.asked) > asked


def test_every_way_to_fail_is_one_sentence_of_its_row(
    whole, server: ChatServer, tmp_path, capsys, monkeypatch
):
    """The others go on, and scoring again asks only what failed."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    out = tmp_path / "out"
    out.mkdir()
    record = json.loads((whole / "run.json").read_text())
    (out / "run.json").write_text(json.dumps(record | {"asked": len(NAMES)}))
    row = answers(whole)["a-open"]
    given = dict.fromkeys(NAMES, "red") | {"empty": ""}
    put(
        out / "answers.jsonl",
        [
            row | {"id": name, "question": f"What ({name})?", "answer": text}
            for name, text in given.items()
        ],
    )
    failures = {
        "key": (Reply(status=401, body={"error": {"message": "no"}}), "refuses the key (401)"),
        "busy": (Reply(status=429, body={"error": {"message": "slow"}}), "too many requests"),
        "broken": (Reply(status=500, body=b"<html>"), "answers 500"),
        "silent": (Reply(silent_s=2.0), "has sent nothing for 0.5 s"),
        "cut": (Reply("{'pred': 'yes', 'score': 5}", cut_after=6), "cut the answer off"),
        "nonsense": (
            Reply("A fine answer. Four of five!"),
            "'A fine answer. Four of five!', where",
        ),
        "dictionary": (Reply("{'pred': 'perhaps', 'score': 4}"), "pred, yes or no, and score"),
        "range": (Reply("{'pred': 'yes', 'score': 7}"), "from 0 to 5"),
        "refusal": (Reply("I'm sorry, I can't help with that."), "I can't help with that"),
    }

    def answer(asked: Asked) -> Reply:
        name = asked.texts[0].partition("What (")[2].partition(")")[0]
        return failures[name][0] if name in failures else Reply("{'pred': 'yes', 'score': 5}")

    server.answer = answer
    line = ["score=[exact,judge]", *judge(server.url, tmp_path / "cache",
            "score.judge.model.tries=1", "score.judge.model.timeout_s=0.5")]  # fmt: skip
    assert rescore(out, *line) == 1
    text = capsys.readouterr().out
    found = scores(out)
    for name, (_, words) in failures.items():
        error = found[name]["errors"]["judge"]
        assert words in error and "\n" not in error and "backbone" not in error, error
        assert found[name]["metrics"] == {"exact": 1.0}
        assert f"no judge of {name}: " in text
    assert found["fine"]["metrics"] == {"exact": 1.0, "judge_right": 1.0, "judge_score": 5.0}
    assert found["empty"]["metrics"] == {"exact": 0.0, "judge_right": 0.0, "judge_score": 0.0}
    assert found["nonsense"]["judgements"]["judge"]["reply"] == "A fine answer. Four of five!"
    server.asked.clear()
    server.answer = lambda asked: Reply('```json\n{"pred": "no", "score": 1}\n```')
    assert rescore(out, *line) == 0 and len(server.asked) == len(failures)
    assert scores(out)["busy"]["metrics"]["judge_score"] == 1.0


def test_a_server_that_is_gone_is_not_asked_a_thousand_times(whole, tmp_path):
    row = answers(whole)["a-open"]
    with chat_server() as gone:
        url = gone.url
    from pipeline.batch.scores.score_rows import build_scorers
    from pipeline.config.compose import compose

    line = ["score=[judge]", *judge(url, tmp_path, "score.judge.model.model=m",
            "score.judge.model.parallel=1", "score.judge.model.tries=1")]  # fmt: skip
    scorers = build_scorers(compose("batch", line).score)
    rows = [row | {"id": str(number), "question": f"{number}?"} for number in range(20)]
    errors = [one["errors"]["judge"] for one in score_rows(rows, scorers)]
    assert all("refuses the connection" in error for error in errors)
    asked = [error for error in errors if not error.startswith("not asked, because")]
    assert len(asked) == 8 and "is the server running, and score.judge.model.url=" in asked[0]


@pytest.mark.parametrize(
    ("form", "reply", "metrics"),
    [
        ("yes_no", "Yes.", {"judge": 1.0}),
        ("yes_no", "yes, 4", None),
        ("score", "7.5", {"judge": 7.5}),
        ("score", "11", None),
        ("score", "nan", None),
        ("score", "7/10", None),
    ],
)
def test_other_forms_of_replies(whole, server: ChatServer, tmp_path, form, reply, metrics):
    from pipeline.batch.scores.score_rows import build_scorers
    from pipeline.config.compose import compose

    server.answer = lambda asked: Reply(reply, json=True)
    line = ["score=[judge]", *judge(server.url, tmp_path, f"score.judge.reply={form}",
            "score.judge.most=10")]  # fmt: skip
    scorers = build_scorers(compose("batch", line).score)
    (row,) = score_rows([answers(whole)["a-open"]], scorers)
    assert row["metrics"] == (metrics or {}) and bool(row["errors"]) == (metrics is None)


@pytest.mark.slow
def test_our_own_server_as_a_judge(folder, whole, server: ChatServer, tmp_path, capsys):
    """A model that answers from a bank takes a text without a video; one about videos refuses."""
    bank = whole.parent / "bank"
    clip = [part for part in toy_parts() if part.startswith("clip")]
    server.answer = lambda asked: Reply("{'pred': 'yes', 'score': 4}")
    parts = ["backbone=endpoint", f"backbone.url={server.url}", f"backbone.model={MODEL}",
             "backbone.answer_form=plain", "whole_bank=true", "letters=8000", f"bank={bank}",
             *clip]  # fmt: skip
    out = tmp_path / "out"
    out.mkdir()
    for name in ("run.json", "answers.jsonl"):
        os.link(whole / name, out / name)
    line = ["score=[judge]", "+score.judge.model.extra.cite_in_text=false"]
    with serving(tmp_path, *parts) as (address, _):
        url = f"{address}/v1"
        asks = judge(url, tmp_path / "cache", "score.judge.model.model=reelbank-bank")
        assert rescore(out, *line, *asks) == 0
        assert scores(out)["a-open"]["metrics"] == {"judge_right": 1.0, "judge_score": 4.0}
        refuses = judge(url, tmp_path / "other", "score.judge.model.model=reelbank")
        assert rescore(out, *line, *refuses) == 1
    error = scores(out)["a-open"]["errors"]["judge"]
    assert "answers 400" in error and "video" in error and "\n" not in error
