"""Controls of a batch: what each reads, rows beside the run's own, and the table of what they
score. What settings two runs may not differ in."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from encoders.errors import UserError
from pipeline.batch import command
from pipeline.batch.compare import compare
from pipeline.batch.controls import build_controls, control_figures, control_table, with_controls
from pipeline.batch.schema import Job
from pipeline.config.compose import compose
from pipeline.config.tasks.evaluation_settings import BatchSettings
from tests.support.batches import answers, encoded, put, run
from tests.support.toys import FRAME_TOKENS
from tests.support.videos import write_video

SECONDS = 12
CONTROLS = "controls=[blind,last4,uniform,oracle,full]"
SMALL = f"read_tokens={6 * FRAME_TOKENS}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two films and four questions: half with options, one with evidence, one at a moment."""
    path = tmp_path_factory.mktemp("batch")
    rows: list[dict[str, Any]] = []
    for number in range(2):
        write_video(path / f"{number}.mp4", SECONDS + number, 5)
        common = {"video": f"{number}.mp4", "category": "backward" if number else "perception"}
        rows.append(
            common | {"id": f"{number}-choice", "question": "Which colour is it?"}
            | {"options": ["red", "blue"], "answer": "A"}
        )  # fmt: skip
        rows.append(common | {"id": f"{number}-open", "question": "What is it?", "answer": "red"})
    rows[0] |= {"evidence": [[3.2, 4.5]]}
    rows[3] |= {"asked_at": 8}
    put(path / "jobs.jsonl", rows)
    return path


@pytest.fixture(scope="module")
def ran(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, and the same one again with controls."""
    out = tmp_path_factory.mktemp("ran") / "out"
    assert run(folder, out, SMALL) == 0
    before = (out / "answers.jsonl").read_bytes()
    assert run(folder, out, SMALL, CONTROLS) == 0
    assert (out / "answers.jsonl").read_bytes().startswith(before)
    return out


@pytest.mark.slow
def test_each_control_reads_what_it_should(ran: Path) -> None:
    rows = answers(ran)
    own = [row for row in rows.values() if not row["control"]]
    assert len(own) == 4 and len(rows) == 4 + 4 * 4 + 1  # one question has evidence
    assert all(row["error"] is None and row["answer"] for row in rows.values())
    for row in own:
        end = row["asked_at"] + 1 if row["asked_at"] else SECONDS + int(row["id"][0])
        assert rows[f"{row['id']}@blind"]["frames_read"] == 0
        assert rows[f"{row['id']}@last4"]["recalled"] == [[end - 4, end]]
        assert rows[f"{row['id']}@uniform"]["frames_read"] == 6 == row["frames_read"]
        assert rows[f"{row['id']}@full"]["recalled"] == [[0, end]]
        assert bool(rows[f"{row['id']}@full"]["choice"]) == bool(row["options"])
    assert rows["0-choice@oracle"]["recalled"] == [[3, 6]]


def test_a_control_encodes_nothing(ran: Path) -> None:
    assert [one["new_segments"] > 0 for one in encoded(ran)] == [True, True, False, False]


def test_the_figures_are_those_of_the_run_and_the_controls_have_their_own(ran: Path) -> None:
    record = json.loads((ran / "run.json").read_text())
    assert (record["asked"], record["answered"], record["accuracy"]["n"]) == (4, 4, 4)
    controls = record["controls"]
    assert list(controls) == ["own", "blind", "full", "last4", "oracle", "uniform"]
    assert controls["own"]["accuracy"] == record["accuracy"]
    assert controls["oracle"]["accuracy"]["n"] == controls["oracle"]["less"]["n"] == 1
    assert controls["last4"]["per_category"]["backward"]["n"] == 2
    table = (ran / "controls.md").read_text().splitlines()
    assert len(table) == 2 + 6 and table[0].startswith("| % right | all | backward | perception |")
    rows = [json.loads(line) for line in (ran / "answers.jsonl").read_text().splitlines()]
    assert compare(rows, rows)["all"]["n"] == 4  # controls are no questions of their own


def test_a_video_that_is_too_long_for_full_is_left_out(folder: Path, ran: Path) -> None:
    out = ran.parent / "short"
    assert run(folder, out, SMALL, "controls=[full]", f"full_tokens={12 * FRAME_TOKENS}") == 0
    rows = answers(out)
    assert rows["0-choice@full"]["right"] is not None
    assert rows["1-choice@full"]["right"] is None and rows["1-choice@full"]["answer"] is None
    assert "is not asked" in rows["1-choice@full"]["warning"]
    assert json.loads((out / "run.json").read_text())["controls"]["full"]["accuracy"]["n"] == 3


def test_differences_are_in_pairs_over_videos() -> None:
    def row(name: str, video: str, control: str, *, right: bool) -> dict[str, Any]:
        ident = f"{name}@{control}" if control else name
        return {"id": ident, "video": video, "control": control, "right": right, "category": ""}

    rows = [row(f"{v}{i}", f"{v}", "", right=True) for v in "ab" for i in range(3)]
    rows += [row(f"{v}{i}", f"{v}", "last4", right=v == "a") for v in "ab" for i in range(3)]
    less = control_figures(rows)["last4"]["less"]
    assert less["difference"] == 0.5 and (less["low"], less["high"], less["n"]) == (0, 1, 6)
    assert "+50.0 (+0.0 to +100.0), n=6" in control_table(control_figures(rows))[-1]


def test_what_cannot_be_is_one_sentence() -> None:
    with pytest.raises(UserError, match="'haystack_only', which needs films with needles"):
        build_controls(["haystack_only"], 1)
    blind = build_controls(["blind"], 1)
    jobs = [Job("a", "v.mp4", "q"), Job("a@blind", "v.mp4", "q")]
    with pytest.raises(UserError, match="the id a@blind is that of a row of the control blind"):
        with_controls(jobs, blind)
    together = [Job("a", "v.mp4", "q", also=("w.mp4",)), Job("b", "*", "q")]
    assert with_controls(together, blind) == together


# ---- what runs may not share

CHANGED = (
    "text=subtitles", "dense=minilm", "read_text_tokens=7", "answer=route",
    "abstention=first_token", "retriever=kv", "compressor=pool", "full_tokens=1",
)  # fmt: skip


@pytest.mark.slow  # seconds of CPU
def test_answers_of_other_settings_share_no_rows() -> None:
    """Every setting that is on no list of exceptions belongs to what a run records and compares."""
    given = ["jobs=j", "out=o", "bank=b"]
    plain = command._settings(compose("batch", given))
    for override in CHANGED:
        assert command._settings(compose("batch", [*given, override])) != plain, override
    related = {one.name for one in fields(BatchSettings)} - set(command._UNRELATED)
    assert related == {key.partition(".")[0] for key in plain}
    assert command._settings(compose("batch", [*given, "controls=[blind]", "threads=1"])) == plain
