"""The needle benchmark as a command: runs that resume, what each arm sees, and bad input.

tests/unit/pipeline/evaluation/test_needle_films.py has films, truths, and scores.
"""

import json
from collections.abc import Sequence
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from encoders.errors import UserError
from encoders.models.backbone import Backbone
from encoders.schema import join_frames
from encoders.sources.file import FileSource
from memory.schema import Question
from memory.storage import json_lines
from pipeline import cli
from pipeline.build import build_backbone
from pipeline.config.compose import compose
from pipeline.config.tasks.evaluation_settings import NeedleSettings
from pipeline.config.tasks.pipeline_settings import PipelineSettings
from pipeline.controls.build import control_settings
from pipeline.evaluation.needle.films import make, vnbench
from pipeline.evaluation.needle.films.make import Grid, known_tasks
from pipeline.evaluation.needle.films.schema import (
    read_films,
    read_items,
)
from pipeline.evaluation.needle.methods.dials import Dial
from pipeline.evaluation.needle.results import score
from pipeline.evaluation.needle.results.arms import UNRELATED, Arm, arms, settings_of
from pipeline.evaluation.needle.results.run import source_of
from pipeline.runtime.stage_timer import StageTimer
from tests.support.needle_films import GRID, frames, published
from tests.support.paths import ROOT
from tests.support.toys import FRAME_TOKENS, toy_parts
from tests.support.videos import write_video

# ---- runs


def go(out: Path, *more: str) -> list[dict[str, Any]]:
    """The smoke preset with toy models: what they answer is noise, what they are given is not."""
    small = [
        "preset=smoke",
        f"out={out}",
        "depths=[10,60]",
        "threads=1",
        "reader.max_new_tokens=4",
        *toy_parts(),
    ]
    assert cli.run("needle", [*small, *more]) == 0
    return json_lines.read(out / "results.jsonl")


REKV = ("+arms.rekv=['experiment=rekv']",)  # an arm on top of the preset's


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("needle")
    go(out, *REKV, "keep_banks=true")
    return out


def test_each_arm_sees_what_it_should(ran: Path) -> None:
    films = {film.name: film for film in read_films(ran / "films.jsonl")}
    rows = json_lines.read(ran / "results.jsonl")
    arms = score.by(rows, "arm")
    assert set(arms) == {
        "fused",
        "rekv",
        "blind",
        "haystack_only",
        "needle_only",
        "oracle",
        "uniform",
        "last1",
        "last4",
        "last16",
        "window",
        "full",
    }
    for row in rows:
        film = films[row["film"]]
        if row["arm"] == "blind":
            assert row["frames_read"] == 0 and row["found"] == []
        if row["arm"] == "oracle":
            near = [any(a - 1 <= t < b + 1 for a, b in row["needles"]) for t in row["read"]]
            assert all(near) and all(row["found"]) and row["frames_read"] <= 4 * len(row["needles"])
        if row["arm"] == "full":
            assert row["frames_read"] == film.seconds
        if row["arm"] == "window":
            assert row["read"] == [film.seconds - 24 + i for i in range(24)]
        if row["arm"] in ("fused", "uniform"):
            assert row["frames_read"] == 24
        if row["arm"] == "uniform":  # from the first frame to the last one
            assert row["read"][0] == 0 and row["read"][-1] == film.seconds - 1
            assert {b - a for a, b in pairwise(row["read"])} <= {1, 2}
        for count in (1, 4, 16):
            if row["arm"] == f"last{count}":
                assert row["read"] == [film.seconds - count + i for i in range(count)]
                assert row["visual_tokens"] == count * FRAME_TOKENS
        if row["options"]:
            assert row["preds"] == vnbench_letters(row["choice"]) and row["gt"] == vnbench_letters(
                row["options"].index(row["truth"])
            )


def configuration_of(out: Path, row: dict[str, Any]) -> dict[str, Any]:
    """The resolved configuration that a row was made with."""
    every = {one["key"]: one for one in json_lines.read(out / "configurations.jsonl")}
    config: dict[str, Any] = every[row["key"].rpartition(" ")[2]]["config"]
    return config


def test_every_row_leads_to_the_whole_configuration_that_made_it(ran: Path) -> None:
    for row in json_lines.read(ran / "results.jsonl"):
        config = configuration_of(ran, row)
        assert set(config) == {one.name for one in fields(NeedleSettings)} - UNRELATED
        assert config["fps"] == 1.0 and config["recent_frames"] == (
            0 if row["arm"] == "rekv" else 4
        )
    controls = json_lines.read(ran / "configurations.jsonl")
    assert {one["arm"]: one["control"].get("frames") for one in controls}["last4"] == 4


def vnbench_letters(slot: int) -> list[str]:
    return [row["gt_option"] for row in vnbench.tries("", "", "", "wxyz", slot, (), 0.0)]


def test_the_report_holds_its_figures(ran: Path) -> None:
    page = (ran / "report.html").read_text()
    assert page.count("<img") >= 3 + 2 and "Failures of fused" in page and "http" not in page
    text = (ran / "report.md").read_text()
    assert all(
        f"## {part}" in text
        for part in (
            "Free answers",
            "Perception and backward",
            "Turn by turn",
            "Differences in pairs",
            "Evidence",
            "VNBench's rules",
            "What encoding costs",
        )
    )
    for name in ("heatmap", "length", "recall"):
        assert (ran / f"{name}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_an_interrupted_run_goes_on(ran: Path, tmp_path: Path) -> None:
    """The file has half of the rows and a torn one. The run adds the others, and all rows are equal
    except for times.
    """
    whole = {row["key"]: row for row in json_lines.read(ran / "results.jsonl")}
    lines = (ran / "results.jsonl").read_text().splitlines(keepends=True)
    kept = lines[: len(lines) // 2]
    (tmp_path / "results.jsonl").write_text("".join(kept) + lines[len(lines) // 2][:100])
    again = go(tmp_path, *REKV)
    assert [json.dumps(row) + "\n" for row in again[: len(kept)]] == kept  # not asked again
    assert len(again) == len(whole) and {row["key"] for row in again} == set(whole)
    for row in again:
        before = dict(whole[str(row["key"])])
        assert {k: v for k, v in row.items() if k != "seconds"} == {
            k: v for k, v in before.items() if k != "seconds"
        }
    assert go(tmp_path, *REKV) == again


@pytest.mark.slow  # seconds of CPU
def test_letters_ask_four_times(tmp_path: Path) -> None:
    rows = go(tmp_path, "answers=letters", "controls=[]", "tasks=[retrieve]")
    asked = [row for row in rows if row["options"]]
    assert asked and all(len(row["preds"]) == 4 for row in asked)


@pytest.mark.slow  # seconds of CPU
def test_films_as_files_are_read_from_them(tmp_path: Path) -> None:
    rows = go(
        tmp_path, "files=true", "tasks=[retrieve]", "controls=[oracle]", "looks=[card,picture]"
    )
    assert rows and all(all(row["found"]) for row in rows if row["arm"] == "oracle")
    listed = {tmp_path / row["video"] for row in vnbench.read(tmp_path / "vnbench.json")}
    # a file of its own for every question
    assert len(listed) == 5 and all(path.is_file() for path in listed)
    assert len({path.resolve() for path in listed}) == 1
    (film,) = read_films(tmp_path / "films.jsonl")
    seen = join_frames(list(FileSource(tmp_path / film.file, 4.0, width=96, height=54).frames()))
    plan = frames(replace(film, file=""), 4.0)
    # as rendered, but for the codec and its chroma
    assert np.abs(seen.pixels.astype(int) - plan.pixels).mean() < 12


@pytest.mark.slow  # seconds of CPU
def test_a_task_with_places_has_its_map(tmp_path: Path) -> None:
    rows = go(tmp_path, "tasks=[places]", "controls=[]", "needle_seconds=1", "minutes=[0.6]")
    assert len({tuple(row["place"]) for row in rows}) == len(rows) == 9
    assert (tmp_path / "places.png").read_bytes().startswith(b"\x89PNG")
    assert "Place on the frame" in (tmp_path / "report.html").read_text()


def test_lengths_in_tokens_give_as_many_frames(tmp_path: Path) -> None:
    given = ["preset=smoke", f"out={tmp_path}", "action=make", "tasks=[count]", *toy_parts()]
    assert cli.run("needle", [*given, "tokens=[1600]"]) == 0
    (film,) = read_films(tmp_path / "films.jsonl")
    config = compose("needle", given)
    frames_of_film = film.seconds * config.fps
    assert frames_of_film * build_backbone(config).tokens_per_frame == pytest.approx(1600)
    with pytest.raises(UserError, match="tokens has 1, and one frame"):
        cli.run("needle", [*given, "tokens=[1]"])


def test_own_needles_are_scored_as_other_tasks(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    Image.new("RGB", (60, 40), (230, 20, 20)).save(folder / "red.png")
    (folder / "needles.csv").write_text(
        "file,question,answer,options\nred.png,What colour is it?,red,red|blue|green|grey\n"
    )
    rows = go(tmp_path / "out", f"needles={folder}", "tasks=[]", "controls=[oracle]")
    assert {row["task"] for row in rows} == {"own"} and len(rows) == 2
    assert all(row["found"] == [True] for row in rows if row["arm"] == "oracle")


# ---- what an arm is


CHANGED = {  # a value other than the default of every setting that can change an answer
    "fps": "2", "read_tokens": "77", "read_text_tokens": "7", "recent_frames": "3",
    "kv_dtype": "int8", "token_dtype": "int8", "cite_share": "0.3", "seed": "1",
    "backbone": "qwen2_vl_2b", "clip": "b32", "segmenter": "scene", "compressor": "pool",
    "prefill": "none", "retriever": "kv", "reader": "tokens", "text": "subtitles",
    "abstention": "first_token", "answer": "route", "further_clips": "b32",
    "dense": "minilm", "answers": "letters", "files": "true", "source.decoder": "pyav",
    "frame_order": "score", "block_score": "kmeans", "query_pool": "last",
    "key_index": "query_lists", "position": "linear",
    "encode_position": "linear", "sparsity": "xattention",
    "resolution": "high_low", "line_scan": "attention",
    "kv_policy": "frame_means", "eviction_score": "output_error",
    "visual_tokens": "on_demand", "made_with": "model",
}  # fmt: skip
SAME = {  # settings that change no answer
    "bank": "b", "ram_mb": "7", "device_mb": "7", "prefetch_frames": "0", "threads": "1",
    "keep_freed_mb": "0", "format": "json", "minutes": "[7]", "keep_banks": "true",
}  # fmt: skip


@pytest.fixture(scope="module")
def arm_of() -> dict[str, Arm]:
    """An arm for each of these settings, and "plain" without any; no model is loaded."""
    given = ["preset=smoke", "controls=[]"]
    # two compositions in place of one for each: one with every other option, one with every value
    options = [f"{key}={value}" for key, value in CHANGED.items() if (ROOT / "conf" / key).is_dir()]
    options += ["+clip@further_clips.b32=b32"]  # what clip=[A,b32] sets beside clip=A
    options += ["position@encode_position=linear"]
    named = {"further_clips", "encode_position", *(one.partition("=")[0] for one in options)}
    values = [f"{k}={v}" for k, v in (CHANGED | SAME).items() if k not in named]
    config = compose("needle", given)
    with_options = compose("needle", [*given, *options])
    with_values = compose("needle", [*given, *values])
    config.arms = {"plain": []} | {key: [key] for key in CHANGED | SAME}

    def changed(keys: Sequence[str]) -> NeedleSettings:
        """What the preset sets, but for these keys."""
        others = {
            key.partition(".")[0]: with_options if key in named else with_values for key in keys
        }
        return config.changed(**{name: getattr(other, name) for name, other in others.items()})

    def no_model(config: NeedleSettings) -> Backbone:
        raise AssertionError("no key needs a model")

    every = arms(config, changed, no_model)
    return {arm.name: arm for arm in every}


def test_a_setting_that_can_change_an_answer_changes_the_key_of_an_arm(
    arm_of: dict[str, Arm],
) -> None:
    keys = {name: arm.key for name, arm in arm_of.items() if name not in SAME}
    assert len(set(keys.values())) == len(CHANGED) + 1, keys
    plain = settings_of(arm_of["plain"].config)
    assert [key for key in CHANGED if settings_of(arm_of[key].config) == plain] == []


def test_a_setting_that_changes_no_answer_keeps_the_key_of_an_arm(arm_of: dict[str, Arm]) -> None:
    assert {arm_of[key].key for key in SAME} == {arm_of["plain"].key}


def test_arms_with_other_words_have_a_bank_of_their_own(arm_of: dict[str, Arm]) -> None:
    assert len({arm_of[key].bank for key in ("plain", "text", "dense", "seed")}) == 4
    # these read what the same bank holds
    assert len({arm_of[key].bank for key in ("plain", "read_text_tokens", "retriever")}) == 1


def test_a_policy_that_stores_otherwise_has_a_bank_of_its_own(arm_of: dict[str, Arm]) -> None:
    """Those that change what heads read have not: test_kv_policies.py."""
    assert arm_of["kv_policy"].bank != arm_of["plain"].bank


def test_what_is_encoded_on_demand_has_a_bank_of_its_own(arm_of: dict[str, Arm]) -> None:
    plain, on_demand = arm_of["plain"], arm_of["visual_tokens"]
    assert on_demand.bank != plain.bank and not plain.encodes_on_demand
    given = ["preset=smoke", "controls=[]"]
    config = compose("needle", given)
    config.arms = {"at once": ["at_once"], "blocks": ["on_demand_blocks"]}
    at_once, blocks = arms(
        config, lambda keys: config.changed(visual_tokens=keys[0]), lambda own: build_backbone(own)
    )
    assert at_once.bank == plain.bank  # the default by its name
    assert len({each.bank for each in (at_once, blocks, on_demand)}) == 3


@pytest.mark.slow  # seconds of CPU
def test_an_arm_encodes_what_its_questions_read(tmp_path: Path) -> None:
    """Without a window before a segment, an on-demand bank holds the same tokens, so it answers the
    same; and only of segments that were read.
    """
    later = "+arms.later=['visual_tokens=on_demand']"
    with pytest.raises(UserError, match="arm later has visual_tokens=on_demand, and questions"):
        go(tmp_path / "rendered", "controls=[]", later)
    rows = go(
        tmp_path, "files=true", "tasks=[retrieve]", "depths=[50]", "controls=[]", "keep_banks=true",
        "minutes=[2]", "prefill=none", "reader=tokens", "retriever=clip", "recent_frames=0",
        f"read_tokens={2 * FRAME_TOKENS}", later,
    )  # fmt: skip
    by_arm = score.by(rows, "arm")
    assert set(by_arm) == {"fused", "later"} and len(by_arm["later"]) == 6
    for ahead, own in zip(*by_arm.values(), strict=True):
        assert ahead["text"] and (ahead["text"], ahead["read"]) == (own["text"], own["read"])
    encoded = {path.stem for path in tmp_path.glob("banks/*/encoded/*/*/*.safetensors")}
    assert 0 < len(encoded) <= 12  # of 15: six questions read two frames each


def test_every_shared_setting_is_in_one_of_the_two_lists() -> None:
    named = {key.partition(".")[0] for key in (*CHANGED, *SAME)}
    # needle works with one bank, and refuses further ones
    assert {one.name for one in fields(PipelineSettings)} - {"also_banks"} <= named


@pytest.mark.slow
def test_an_arm_reads_the_words_of_its_films(tmp_path: Path) -> None:
    """Subtitles beside the films are read by the arm with text= alone, as `ask` reads them."""
    settings = ("files=true", "tasks=[retrieve]", "controls=[needle_only]")
    small = ["preset=smoke", f"out={tmp_path}", "depths=[50]", *settings]
    assert cli.run("needle", [*small, "action=make"]) == 0
    (film,) = read_films(tmp_path / "films.jsonl")
    line = " ".join(item.question for item in read_items(tmp_path / "items.jsonl"))
    subtitles = (tmp_path / film.file).with_suffix(".srt")
    subtitles.write_text(f"1\n00:00:02,000 --> 00:00:04,000\n{line}\n")
    words = "+arms.words=['text=subtitles','read_text_tokens=600']"
    rows = go(tmp_path, "action=run", *settings, "depths=[50]", words)
    read = {arm: {row["lines_read"] for row in own} for arm, own in score.by(rows, "arm").items()}
    for row in rows:
        has_line = [start < 4.0 and end > 2.0 for start, end in row["needles"]]
        assert row["found_in_lines"] == [one and row["lines_read"] == 1 for one in has_line]
    assert read["fused"] == read["needle_only"] == {0}
    assert read["words"] == {1}
    config = configuration_of(tmp_path, next(row for row in rows if row["arm"] == "words"))
    assert list(config["text"]) == ["subtitles"] and config["read_text_tokens"] == 600


def test_words_of_rendered_films_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"arm words has text=.*files=true"):
        go(tmp_path, "+arms.words=['text=subtitles']")
    assert not (tmp_path / "results.jsonl").exists()


def test_rows_are_what_the_bank_recalls_and_the_reader_reads(ran: Path) -> None:
    """Without words, an arm reads exactly the frames that the bank alone recalls."""
    films = {film.name: film for film in read_films(ran / "films.jsonl")}
    items = {item.id: item for item in read_items(ran / "items.jsonl")}
    given = [
        "preset=smoke", f"out={ran}", "depths=[10,60]", "threads=1", "reader.max_new_tokens=4",
        *toy_parts(), *REKV,
    ]  # fmt: skip
    backbone = build_backbone(compose("needle", given))
    all_arms = arms(
        compose("needle", given), lambda more: compose("needle", [*given, *more]),
        lambda config: backbone,
    )  # fmt: skip
    rows = {(row["arm"], row["item"]): row for row in json_lines.read(ran / "results.jsonl")}
    for arm in all_arms[:2]:
        with arm.qa.bank as bank:
            for name in [name for column, name in rows if column == arm.name][:6]:
                item, row = items[name], rows[arm.name, name]
                film = films[item.film]
                question = Question(item.question, source_of(arm, film, ran).info.video_id)
                evidence = bank.recall(
                    question,
                    read_tokens=arm.qa.answerer.read_tokens,
                    kv=arm.qa.answerer.reader.needs_kv,
                )
                reading = arm.qa.answerer.reader.read(evidence, StageTimer())
                times = [round(float(t), 3) for run in evidence.runs for t in run.tokens.times]
                assert (row["text"], row["read"]) == (reading.text, sorted(times))
                assert row["ranked"] == [float(o) for o in evidence.hits.frames[:64]]


# ---- bad input

BAD = {
    "task": (["tasks=[retrieve,haiku]"], "'haiku'"),
    "setting of a task": (["+needle_task.count.most=3"], "needle_task.count"),
    "class of a task": (["+needle_task.mine._target_=no.where.Mine", "tasks=[mine]"], "no.where"),
    "depth": (["depths=[50,101]"], "101"),
    "too short": (["minutes=[0.01]"], "shorter than a needle"),
    "too many": (["minutes=[0.3]", "tasks=[order]"], "has room for"),
    "none fits": (["minutes=[0.2]", "tasks=[count]"], "has room for"),
    "no task": (["+needle_task.mine._target_=builtins.dict", "tasks=[mine]"], "NeedleTask"),
    "look": (["looks=[hologram]"], "'hologram'"),
    "films": (["films=[1,2,3]"], "films=[1,2,3]"),
    "length": (["minutes=[2000]"], "2000"),
    "action": (["action=dance"], "action=dance"),
    "control": (["controls=[placebo]"], "'placebo'"),
    "name": (["+arms.uniform=[]"], "Two arms"),
    "answers": (["answers=sung"], "answers=sung"),
    "haystack": (["haystack=[gone.mp4]"], "gone.mp4"),
    "part": (["+arms.a=['retriever=psychic']"], "retriever=psychic"),
    "size": (["width=8"], "width=8"),
    "predictions": (["predictions=x.jsonl"], "action=score"),
    "not made": (["action=run"], "films.jsonl"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence(tmp_path: Path, monkeypatch, capsys, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    overrides, word = BAD[name]
    parts = toy_parts()
    capsys.readouterr()  # the first call writes a checkpoint and shows how far it is
    with pytest.raises(SystemExit) as done:
        cli.main(["needle", "preset=smoke", "out=out", *overrides, *parts])
    err = capsys.readouterr().err
    assert (
        done.value.code == 2
        and err.count("\n") == 1
        and word in err
        and err.startswith("reelbank: ")
    ), err


def test_a_haystack_file_shorter_than_a_needle(tmp_path: Path) -> None:
    write_video(tmp_path / "blink.mp4", 1.0, 5)
    with pytest.raises(UserError, match=r"blink\.mp4 lasts 1\.00 s, shorter than a needle of 2 s"):
        cli.run("needle", ["preset=smoke", f"out={tmp_path / 'out'}", f"haystack=[{tmp_path}]"])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("name", "field"), [("films.jsonl", "seconds"), ("items.jsonl", "answer")])
def test_a_plan_without_a_field_is_told_by_row_and_field(
    tmp_path: Path, name: str, field: str
) -> None:
    make.save(*make.make(replace(GRID, tasks=("retrieve",))), tmp_path)
    rows = [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]
    del rows[1][field]
    (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserError, match=rf"{name}, row 2 has no field '{field}'"):
        (read_films if name == "films.jsonl" else read_items)(tmp_path / name)


def test_results_of_others_are_scored(tmp_path: Path, capsys) -> None:
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(row) + "\n" for row in published()))
    assert cli.run("needle", ["action=score", f"predictions={tmp_path / 'r.jsonl'}"]) == 0
    out = capsys.readouterr().out
    assert "four tries    51.8" in out and "single try    62.8" in out


PRESETS = sorted(path.stem for path in (ROOT / "conf" / "preset").glob("*.yaml"))


@pytest.mark.parametrize(
    "name",
    [
        # many arms, composed one by one
        pytest.param(name, marks=[] if name in ("smoke", "small") else [pytest.mark.slow])
        for name in PRESETS
    ],
)
def test_every_preset_composes_and_its_arms_do(name: str) -> None:
    config = compose("needle", [f"preset={name}"])
    Grid(
        (*config.minutes,) or (1.0,),  # preset=tokens has lengths in tokens
        (*config.depths,),
        (*config.tasks,),
        (*config.films,),
        (*config.looks,),
        2.0,
        0,
        (),
        False,
        96,
        54,
        known_tasks(config.needle_task),
    )
    for overrides in config.arms.values():
        compose("needle", [f"preset={name}", *overrides])
    control_settings(config.controls, config.full_tokens)
    assert set(config.papers) <= set(config.arms)
    assert set(config.dials) <= set(config.arms)
    known = {one.name for one in fields(NeedleSettings)}
    assert {Dial.parse(text).key.partition(".")[0] for text in config.dials.values()} <= known
