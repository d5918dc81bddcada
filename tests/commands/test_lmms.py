"""Reelbank inside lmms-eval.

Without lmms-eval, the tests cover requests as chat messages, and answers in their order with each
video encoded once. They also cover the documents, functions and scores of our tasks. The slow tests
run lmms-eval itself.
"""

import importlib.util
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean
from types import ModuleType
from typing import Any

import pytest
import yaml

from encoders.errors import UserError
from memory.bank import MemoryBank
from memory.retrieval.uniform import UniformRetriever
from memory.storage import json_lines
from pipeline import cli
from pipeline.evaluation.lmms import documents, scores
from pipeline.evaluation.lmms.answer import Answers, TextAnswer
from pipeline.evaluation.lmms.requests import Clip, VideoRequest, cut, request_of
from pipeline.evaluation.needle.films import vnbench
from pipeline.evaluation.needle.results import score
from pipeline.needle_world.questions import NOT_SHOWN
from pipeline.scoring import is_right
from tests.support.paths import ROOT
from tests.support.toys import toy_parts
from tests.support.videos import write_video

TASKS = ROOT / "pipeline" / "evaluation" / "lmms" / "tasks"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A needle folder with a film of 21 seconds as a file."""
    out = tmp_path_factory.mktemp("needle")
    plan = [
        "minutes=[0.35]",
        "tasks=[retrieve]",
        "films=[1]",
        "needle_seconds=1.5",
        "depths=[10,50]",
        "files=true",
        "width=96",
        "height=54",
    ]
    assert cli.run("needle", ["preset=smoke", "action=make", f"out={out}", *plan]) == 0
    return out


# ---- requests


def shown(*parts: Mapping[str, Any], **settings: Any) -> VideoRequest:
    return request_of("task 3", [{"role": "user", "content": list(parts)}], settings)


VIDEO: dict[str, Any] = {"type": "video", "url": "a.mp4"}
TEXT: dict[str, Any] = {"type": "text", "text": "Which?"}


def test_messages_become_a_question_about_a_clip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link.mp4").symlink_to("a.mp4")
    here = str(tmp_path / "a.mp4")
    assert shown(VIDEO, TEXT, until=["\n\n"], max_new_tokens=4) == VideoRequest(
        Clip(here), "Which?", 4, ("\n\n",)
    )
    both: list[Mapping[str, Any]] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [VIDEO, TEXT]},
    ]
    assert request_of("t 0", both, {}).question == "Be brief.\nWhich?"
    assert shown(VIDEO | {"start_time": 2, "end_time": 5.5}, TEXT).clip == Clip(here, 2.0, 5.5)
    assert shown({"type": "video", "url": "link.mp4"}, TEXT).clip == Clip(here)  # the same film
    dated = {"type": "video", "url": {"url": "file:///a.mp4", "video_start": 1.0, "video_end": 2.0}}
    assert shown(dated, TEXT).clip == Clip("/a.mp4", 1.0, 2.0)


@pytest.mark.parametrize(
    "parts, settings, told",
    [
        ([TEXT], {}, "task 3 shows 0 videos"),
        ([VIDEO, VIDEO, TEXT], {}, "2 videos"),
        ([VIDEO, {"type": "image", "url": "a.png"}], {}, "type image"),
        ([VIDEO, TEXT], {"temperature": 0.7}, "temperature=0.7"),
        ([VIDEO, TEXT], {"do_sample": True}, "--gen_kwargs"),
        ([VIDEO, TEXT], {"max_new_tokens": 0}, "max_new_tokens=0"),
        ([{"type": "video", "url": 7}, TEXT], {}, "as int"),
    ],
)
def test_what_cannot_be_asked_is_refused(
    parts: list[dict[str, Any]], settings: dict[str, Any], told: str
) -> None:
    with pytest.raises(UserError, match=told):
        shown(*parts, **settings)


def test_an_answer_ends_before_a_stop_string() -> None:
    assert (
        cut("red\n\nblue. green", [".", "\n\n"]) == "red"
        and cut("red", []) == "red"
        and cut("red", [""]) == "red"
    )


def test_each_video_is_encoded_once_and_answers_come_in_order(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", 4, 5)
    write_video(tmp_path / "b.mp4", 3, 5)
    (tmp_path / "link.mp4").symlink_to("a.mp4")
    names = ["a.mp4", "b.mp4", "missing.mp4", "a.mp4", "link.mp4", "b.mp4"]
    requests = [
        VideoRequest(Clip(str(tmp_path / name)), f"Is it {i}?", 3) for i, name in enumerate(names)
    ]
    requests.append(VideoRequest(Clip(str(tmp_path / "a.mp4"), 1.0, 2.5), "Is it 0?", 3))
    heard: list[str] = []
    failed: list[str] = []
    settings = dict(part.split("=", 1) for part in toy_parts()) | {
        "bank": str(tmp_path / "bank"),
        "threads": 1,
    }

    def run(*numbers: int) -> Iterator[TextAnswer]:
        answers = Answers(settings, info=heard.append, error=failed.append)
        try:
            yield from answers.to([requests[number] for number in numbers])
        finally:
            answers.close()

    def encoded() -> int:
        return sum("segments encoded" in line for line in heard)

    coming = run(*range(7))
    told = [next(coming)]
    assert encoded() == 1  # the first answer does not wait for the second video
    told += coming
    assert [one.tokens > 0 for one in told] == [True, True, False, True, True, True, True] and told[
        2
    ].text == ""
    assert encoded() == 3  # the link is the same film, a part of it is another
    assert len(failed) == 1 and "missing.mp4" in failed[0]
    heard.clear()
    assert list(run(5, 3, 0)) == [told[5], told[3], told[0]] and encoded() == 0


def test_a_bank_that_others_write_stops_the_run(tmp_path: Path) -> None:
    """It is no fault of the video: empty answers would count as wrong ones."""
    write_video(tmp_path / "a.mp4", 2, 5)
    settings = dict(part.split("=", 1) for part in toy_parts()) | {
        "bank": str(tmp_path / "bank"),
        "threads": 1,
    }
    answers = Answers(settings, info=print, error=print)
    with MemoryBank.open(
        tmp_path / "bank", None, UniformRetriever(), recent_frames=0, create=False
    ) as other:
        other.begin_writing()
        with pytest.raises(UserError, match="writ"):
            list(answers.to([VideoRequest(Clip(str(tmp_path / "a.mp4")), "Is it?")]))
    answers.close()


@pytest.mark.parametrize(
    "settings, told", [({"video": "a.mp4"}, "video=a.mp4"), ({"fbs": 2}, "fbs")]
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        Answers(settings, info=print, error=print)


# ---- tasks


def loaded(path: Path) -> dict[str, Any]:
    """A task with its includes; functions as their names."""

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_constructor("!function", lambda loader, node: f"!{node.value}")
    read = yaml.load(path.read_text(), Loader)
    base = read.pop("include", None)
    return (loaded(path.parent / base) if base else {}) | read


def utils(folder: Path) -> ModuleType:
    """As lmms-eval runs it."""
    spec = importlib.util.spec_from_file_location("utils", folder / "utils.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def named(task: Any) -> Iterator[str]:
    """All functions that a task names."""
    if isinstance(task, str) and task.startswith("!"):
        yield task[1:]
    for value in (
        task.values() if isinstance(task, dict) else task if isinstance(task, list) else ()
    ):
        yield from named(value)


@pytest.mark.parametrize("path", sorted(TASKS.rglob("*.yaml")), ids=lambda path: path.stem)
def test_a_task_is_whole(path: Path, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its functions exist, its documents have its columns, and some answer has each metric."""
    monkeypatch.setenv("REELBANK_NEEDLE", str(made))
    monkeypatch.setenv("VNBENCH", str(made / "vnbench.json"))
    task, own = loaded(path), utils(path.parent)
    found = {}
    for name in named(task):
        module, _, function = name.rpartition(".")
        found[name] = getattr(
            own if module == "utils" else importlib.import_module(module), function
        )
    assert task["task"] == path.stem and Path(found["utils.FILE"]).is_file()
    rows = own.FREE if task["process_docs"] == "!utils.free" else own.TRIES
    assert rows and all(
        {task[key] for key in ("doc_to_visual", "doc_to_text", "doc_to_target")} <= set(row)
        for row in rows
    )
    assert all(Path(row["video"]).is_file() for row in rows)
    process = found[task["process_results"][1:]]
    records: dict[str, list[Any]] = {}
    for row in rows:
        for metric, record in process(
            row, [row["letter"] if task["doc_to_text"] == "prompt" else row["answer"]]
        ).items():
            records.setdefault(metric, []).append(record)
            assert task["cluster_key"] in record and "score" in record
    metrics = {entry["metric"]: found[entry["aggregation"][1:]] for entry in task["metric_list"]}
    assert set(records) <= set(metrics)
    figures = {name: metrics[name](own) for name, own in records.items()}
    assert figures == dict.fromkeys(records, 1.0) | (
        {"false_positives": 0.0} if "false_positives" in records else {}
    )


def test_documents_and_scores_follow_the_benchmark(made: Path) -> None:
    tries = documents.four_tries(made / "vnbench.json", made)
    rows = vnbench.read(made / "vnbench.json")
    assert [row["prompt"] for row in tries] == [vnbench.prompt(row) for row in rows]
    assert (
        len({row["film"] for row in tries})
        == 1
        < len({row["id"] for row in tries})
        == len(tries) / 4
    )
    inner = documents.four_tries(made / "vnbench.json", made / "VNBench")
    assert [Path(row["video"]).name for row in inner] == [Path(row["video"]).name for row in tries]
    # one wrong try of four costs a question
    texts = [row["letter"] for row in tries]
    texts[0] = "ABCD".replace(texts[0], "")[0]
    records = [scores.letters(row, [text]) for row, text in zip(tries, texts, strict=True)]
    single, four, ret = (
        [record[name] for record in records] for name in ("single_try", "four_tries", "ret")
    )
    questions = len(tries) / 4
    assert scores.single_try(single) == pytest.approx(1 - 1 / len(tries))
    assert scores.four_tries(four) == scores.four_tries(ret) == pytest.approx(1 - 1 / questions)
    # words: what names no option names no letter, whatever letters are in it
    said = [scores.words(row, ["A BAD CARD"])["named"] for row in tries]
    assert scores.named(said) == 0.0 and scores.single_try(said) == 0.0
    free = documents.needle(made)
    none = [row for row in free if not row["options"]]
    assert none and all(row["answer"] == NOT_SHOWN for row in none)
    assert (
        scores.false_positives([scores.free(row, ["blue"])["false_positives"] for row in none])
        == 1.0
    )


def test_folders_that_lack_something_are_told(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"lacks \d+ of the videos"):
        documents.four_tries(made / "vnbench.json", tmp_path)
    (tmp_path / "items.jsonl").write_bytes((made / "items.jsonl").read_bytes())
    films = [
        json.loads(line) | {"file": ""} for line in (made / "films.jsonl").read_text().splitlines()
    ]
    (tmp_path / "films.jsonl").write_text("".join(json.dumps(film) + "\n" for film in films))
    with pytest.raises(UserError, match="files=true"):
        documents.needle(tmp_path)
    monkeypatch.delenv("VNBENCH", raising=False)
    with pytest.raises(UserError, match="VNBENCH is not set"):
        utils(TASKS / "vnbench")


# ---- lmms-eval itself, in an environment of its own

RUNS = ("reelbank_needle", "reelbank_needle_letters", "reelbank_needle_words", "vnbench_words")


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An interpreter with lmms-eval and Reelbank: REELBANK_LMMS_PYTHON, else .venv-lmms, else a new
    one. The new one is built as docs/guides/lmms-eval.md says, which takes some minutes and a
    package index.
    """
    place = ROOT / ".venv-lmms" / "bin" / "python"
    if given := os.environ.get("REELBANK_LMMS_PYTHON"):
        return given
    if not place.exists():
        place = tmp_path_factory.mktemp("lmms") / "bin" / "python"
        pip = [
            str(place),
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-input",
            "--disable-pip-version-check",
        ]
        subprocess.run([sys.executable, "-m", "venv", str(place.parent.parent)], check=True)
        subprocess.run(
            [*pip, "-r", "pipeline/evaluation/lmms/requirements.txt"], cwd=ROOT, check=True
        )
        own = ["--no-deps", "--no-build-isolation", "lmms-eval==0.7.3", "-e", "."]
        subprocess.run([*pip, *own], cwd=ROOT, check=True)
    return str(place)


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four films of 36 seconds, and the answers of `reelbank needle` about them. Half of the films
    are beyond the embedded model.
    """
    out = tmp_path_factory.mktemp("benchmark")
    plan = [
        "minutes=[0.6]",
        "tasks=[retrieve,order]",
        "films=[2]",
        "needle_seconds=1.5",
        "files=true",
        "controls=[]",
    ]
    assert cli.run("needle", ["preset=smoke", f"out={out}", "threads=1", *plan]) == 0
    return out


def lmms_eval(
    python: str, benchmark: Path, out: Path, tasks: Sequence[str], *more: str
) -> "subprocess.Popen[bytes]":
    """A started run of lmms-eval that writes to out/log. It fetches nothing: its cache is empty and
    the hub is switched off.
    """
    settings = f"bank={out / 'bank'},threads=1"
    command = [
        python,
        "-m",
        "pipeline.evaluation.lmms",
        "--model",
        "reelbank",
        "--model_args",
        settings,
        "--tasks",
        ",".join(tasks),
    ]
    command += ["--include_path", str(TASKS), "--output_path", str(out), "--log_samples", *more]
    own = {
        "HF_HOME": str(out / "hub"),
        "HF_HUB_OFFLINE": "1",
        "LMMS_CACHE_RUN_ID": "one",
        "REELBANK_NEEDLE": str(benchmark),
    }
    env = os.environ | own | {"VNBENCH": str(benchmark / "vnbench.json")}
    with (out / "log").open("wb") as log:
        return subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=subprocess.STDOUT)


def results_of(out: Path) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]:
    """The results of lmms-eval, and the samples of each task in the order of the documents."""
    (path,) = out.glob("*_results.json")
    samples = {}
    for task in RUNS:
        for file in out.glob(f"*_samples_{task}.jsonl"):
            rows = [json.loads(line) for line in file.read_text().splitlines()]
            samples[task] = sorted(rows, key=lambda row: int(row["doc_id"]))
    return json.loads(path.read_text()), samples


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_real_run_of_lmms_eval(
    python: str, benchmark: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One run of four tasks encodes each film once, answers as `reelbank needle` does, and scores
    as our scorers do.
    """
    code = lmms_eval(python, benchmark, tmp_path, RUNS).wait()
    log = (tmp_path / "log").read_text()
    assert code == 0, log
    assert log.count("segments encoded") == 4, log
    results, samples = results_of(tmp_path)
    assert results["config"]["model_backend"] == "pipeline.evaluation.lmms.model.Reelbank (chat)"
    ours = {row["item"]: row for row in json_lines.read(benchmark / "results.jsonl")}
    free = documents.needle(benchmark)
    assert [row["filtered_resps"] for row in samples["reelbank_needle"]] == [
        ours[row["id"]]["text"] for row in free
    ]
    assert all(
        count["output_tokens"] > 0
        for row in samples["reelbank_needle"]
        for count in row["token_counts"]
    )
    found = results["results"]["reelbank_needle"]
    assert found["right,none"] == pytest.approx(
        mean(right for _, right in score.accuracy(ours.values()))
    )
    assert found["false_positives,none"] == pytest.approx(
        mean(told for _, told in score.false_positives(ours.values()))
    )
    assert 0 < found["right,none"] < 1  # a figure that says something
    tries = documents.four_tries(benchmark / "vnbench.json", benchmark)
    capsys.readouterr()
    for task in RUNS[1:]:
        rows = []
        for row, sample in zip(tries, samples[task], strict=True):
            text = sample["filtered_resps"]
            if task.endswith("words"):  # the option that is said, by the rule of the benchmark
                text = next(
                    (
                        letter
                        for letter, o in zip("ABCD", row["options"], strict=True)
                        if is_right(text, o)
                    ),
                    "",
                )
            stem = f"{row['id']}_{row['try']}"
            rows.append(
                {
                    "question_id": stem,
                    "type": row["type"],
                    "gt": row["letter"],
                    "pred": text,
                    "try": row["try"],
                }
            )
        path = tmp_path / f"{task}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        assert cli.run("needle", ["action=score", f"predictions={path}", "format=json"]) == 0
        official, told = json.loads(capsys.readouterr().out), results["results"][task]
        assert told["four_tries,none"] == pytest.approx(official["overall"])
        assert told["single_try,none"] == pytest.approx(official["single"])
        for group, share in official["groups"].items():
            assert told[f"{group},none"] == pytest.approx(share)
    assert 0 < results["results"]["vnbench_words"]["four_tries,none"] < 1
    assert results["results"]["vnbench_words"] == results["results"]["reelbank_needle_words"] | {
        "alias": "vnbench_words"
    }


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_killed_run_goes_on_behind_its_last_answer(
    python: str, benchmark: Path, tmp_path: Path
) -> None:
    """Answers come from a generator. Those before SIGKILL are in lmms-eval's cache, and are not
    requested again.
    """
    options = ("--device", "cpu", "--use_cache", str(tmp_path / "cache"))
    run = lmms_eval(python, benchmark, tmp_path, RUNS[:1], *options)
    audit = tmp_path / "cache" / "runs" / "one" / "rank_0.audit.jsonl"
    while run.poll() is None and not (audit.exists() and len(audit.read_text().splitlines()) >= 3):
        time.sleep(0.02)
    run.kill()
    assert run.wait() < 0, "it was done before it could be killed"
    free, progress = (
        documents.needle(benchmark),
        re.findall(r"Model Responding.*?(\d+)/\d+", (tmp_path / "log").read_text()),
    )
    assert int(progress[-1]) < len(free)  # stored while others were still to be answered
    stored = [json.loads(line) for line in audit.read_text().splitlines() if line.endswith("}")]
    code = lmms_eval(python, benchmark, tmp_path, RUNS[:1], *options).wait()
    log = (tmp_path / "log").read_text()
    assert code == 0, log
    hits = re.search(r"(\d+)/(\d+) cache hits", log)
    assert hits is not None and len(stored) <= int(hits[1]) < int(hits[2]) == len(free), log
    ours = {row["item"]: row["text"] for row in json_lines.read(benchmark / "results.jsonl")}
    _, samples = results_of(tmp_path)
    assert [row["filtered_resps"] for row in samples["reelbank_needle"]] == [
        ours[row["id"]] for row in free
    ]
