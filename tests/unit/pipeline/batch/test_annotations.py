"""Annotation files of benchmarks, in their published forms: what comes of right rows, and how
broken ones are told.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from encoders.errors import UserError
from pipeline.batch import jobs
from pipeline.batch.annotations.fields import spans
from pipeline.batch.annotations.multiple_choice import referring_words
from pipeline.batch.jobs import Annotations
from pipeline.batch.option_choice import render_prompt
from pipeline.batch.schema import Entry, Job, RowError, Watch
from pipeline.config.compose import compose
from pipeline.config.parts import instantiate
from pipeline.evaluation.needle.films import vnbench
from tests.support.benchmark_rows import (
    ANNOTATIONS,
    EGO_LIFE,
    OPTIONS,
    OVO_REC,
    PROACTIVE,
    TVQA,
    Annotation,
)
from tests.support.job_files import benchmark, collected, write
from tests.support.paths import CONF

WATCH = {"prompt": "Now?", "due": 3, "until": 5}
IDS = [f"{number}-{one.option}" for number, one in enumerate(ANNOTATIONS)]


def fields(job: Job, names: Any, folder: Path) -> dict[str, Any]:
    """These fields of a job, with the names of files as they are below the folder."""
    values = {name: getattr(job, name) for name in names}
    below = f"{folder}/"
    for name in {"video", "subtitles", "picture"} & values.keys():
        values[name] = values[name].removeprefix(below)
    if "also" in values:
        values["also"] = tuple(path.removeprefix(below) for path in values["also"])
    return values


@pytest.mark.parametrize("one", ANNOTATIONS, ids=IDS)
def test_right_rows(one: Annotation, tmp_path):
    found, bad = collected(one.write(tmp_path, [one.right]), benchmark(one.option))
    assert bad == [] and len(found) == len(one.wanted)
    for job, wanted in zip(found, one.wanted, strict=True):
        wanted = {name: value.removeprefix("./") if name == "video" else value
                  for name, value in wanted.items()}  # fmt: skip
        assert fields(job, wanted, tmp_path) == wanted


BROKEN = [
    (one, row, words, f"{name}-{words}")
    for one, name in zip(ANNOTATIONS, IDS, strict=True)
    for row, words in one.broken
]


@pytest.mark.parametrize(
    ("one", "row", "words"), [each[:3] for each in BROKEN], ids=[each[3] for each in BROKEN]
)
def test_a_broken_row_is_told_by_file_and_place_and_the_others_are_read(one, row, words, tmp_path):
    path = one.write(tmp_path, [row, one.right])
    found, bad = collected(path, benchmark(one.option))
    assert len(found) == len(one.wanted), bad
    (told,) = bad
    assert told.place.startswith(path.name) and words in told.why, told
    assert len(str(told).splitlines()) == 1


def test_every_reader_of_benchmarks_has_a_row():
    options = {path.stem for path in (CONF / "annotations").glob("*.yaml")}
    assert options == {"table", "ego_life_qa", *(one.option for one in ANNOTATIONS)}


def test_the_place_of_a_question_within_a_row(tmp_path):
    """A question that is broken costs no other question about its video."""
    turns = [{"question": "Q?", "answer": "in", "end_time": 4}, {"question": "R?", "answer": "on"},
             "S?"]  # fmt: skip
    path = write(tmp_path / "ego4d_oe.json", [{"video_path": "v.mp4", "conversations": turns}])
    found, bad = collected(path, benchmark("rvs"))
    assert [job.question for job in found] == ["Q?"]
    assert [one.place for one in bad] == [
        "ego4d_oe.json entry 1, conversations 2",
        "ego4d_oe.json entry 1, conversations 3",
    ]
    assert "the field end_time is missing" in bad[0].why and "not an object" in bad[1].why


def test_the_place_of_a_question_of_an_episode(tmp_path):
    path = tmp_path / "tvqa_val_edited.json"
    content = {"Friends": {"season_1": {"episode_2": {"questions": [TVQA, 5], "more": 7}}}}
    path.write_text(json.dumps(content))
    found, bad = collected(path, benchmark("tvqa_long"))
    assert len(found) == 1
    place = "tvqa_val_edited.json, Friends, season_1, episode_2"
    assert [one.place for one in bad] == [f"{place}, question 2", f"{place}, more"]


# ---- days of clips


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Clips of a person on two days, and one of another person."""
    for name in ("DAY1_A1_JAKE_11094208", "DAY1_A1_JAKE_23595900", "DAY2_A1_JAKE_11203000",
                 "DAY2_A1_JAKE_11210000", "DAY2_A1_JAKE_11213000"):  # fmt: skip
        path = tmp_path / "A1_JAKE" / name[:4] / f"{name}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"film")
    (tmp_path / "A2_ALICE" / "DAY1").mkdir(parents=True)
    (tmp_path / "A2_ALICE" / "DAY1" / "DAY1_A2_ALICE_08000000.mp4").write_bytes(b"film")
    return tmp_path


def test_a_question_about_a_life_sees_the_clips_that_ended_before_it(clips):
    found, bad = collected(write(clips / "qa.json", [EGO_LIFE]), benchmark("ego_life_qa"))
    assert bad == []
    (job,) = found
    # the clip that begins at 11:21:00 runs when the question comes, at 11:21:02
    assert [Path(path).stem for path in job.videos] == [
        "DAY1_A1_JAKE_11094208", "DAY1_A1_JAKE_23595900", "DAY2_A1_JAKE_11203000"
    ]  # fmt: skip
    assert (job.id, job.letter, job.answer, job.task) == ("1", "B", "Ben", "EntityLog")


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (EGO_LIFE | {"query_time": {"date": "DAY1", "time": "11094300"}}, "no video ended before"),
        (EGO_LIFE | {"query_time": "DAY2"}, "query_time='DAY2' is no object"),
        (EGO_LIFE | {"query_time": {"date": "DAY2", "time": "11:21"}}, "query_time.time='11:21'"),
        (EGO_LIFE | {"query_time": {"date": "day two", "time": "11210217"}}, "query_time.date"),
        (EGO_LIFE | {"identity": "A9_ZOE"}, "matches no file"),
        ({key: EGO_LIFE[key] for key in EGO_LIFE if key != "choice_c"}, "field choice_c is"),
    ],
)
def test_broken_rows_about_a_life(row, words, clips):
    path = write(clips / "qa.json", [row, EGO_LIFE | {"ID": "2"}])
    found, (told,) = collected(path, benchmark("ego_life_qa"))
    assert [job.id for job in found] == ["2"]
    assert told.place == "qa.json entry 1" and words in told.why


# ---- the parts


@pytest.mark.parametrize(
    ("question", "bare", "words"),
    [
        ("What does the man in the red hat hold?", "What does the man hold?", "in the red hat"),
        ("In the video, which subtitles appear at the same time as the man on stage?",
         "Which subtitles appear at the same time?", "In the video as the man on stage"),
        ("Who?", "Who?", ""),
    ],
)  # fmt: skip
def test_the_words_that_refer_to_a_moment(question, bare, words):
    assert referring_words(question, bare).replace(",", "") == words


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ([[2, 5.5]], [[2, 5.5]]),
        ([2, 5.5], [[2, 5.5]]),
        ("[[2, 5]]", [[2, 5]]),
        ("02:15-1:03:10", [[135, 3790]]),
        ("2.5-9", [[2.5, 9]]),
        ("00:01-00:02, 00:05-00:06", [[1, 2], [5, 6]]),
        (["00:49-01:16"], [[49, 76]]),
        ("nan-nan", []),
        ("", []),
        (None, []),
    ],
)
def test_spans_as_benchmarks_write_them(value, wanted):
    assert spans("ts", value) == wanted


@pytest.mark.parametrize("value", ["soon", [1], [[1, 2, 3]], 5, [["a", "b"]], [[-1, 2]], {"a": 1}])
def test_what_is_no_span_is_told(value):
    with pytest.raises(RowError, match="is no span of time"):
        spans("ts", value)


def test_columns_that_do_not_exist_are_told():
    with pytest.raises(UserError, match=r"annotations.columns.colour is no column; use accepted, "):
        benchmark("video_mme", "+annotations.columns.colour=x")


def test_the_forward_tasks_are_asked_in_the_benchmarks_words(tmp_path):
    found, _ = collected(write(tmp_path / "ovo.json", [OVO_REC]), benchmark("ovo_bench"))
    assert "How many times did they break something?\nProvide your" in found[0].question


def test_a_question_that_waits_is_asked_in_the_benchmarks_words(tmp_path):
    path = write(tmp_path / "questions_proactive.json", [PROACTIVE])
    ((job,), _) = collected(path, benchmark("streaming_bench_proactive"))
    watch = job.watch
    assert watch is not None
    assert (watch.due, watch.until, watch.every, watch.tolerance) == (29.0, 33.0, 1.0, 2.0)
    asked = 'When the score is 3, output "3". Is it the right time to output "3"? You can only'
    assert asked in watch.prompt and watch.prompt.endswith("The answer is:")
    assert 'Question: When the score is 3, output "3".\n\nThe answer' in job.question


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"watch": "soon"}, "watch='soon' is no object with prompt, due and until"),
        ({"watch": {"prompt": "Now?", "due": 3, "until": 2}}, "must come in this order"),
        ({"asked_at": ""}, "asked_at=None, watch.due=3.0 and watch.until=5.0 must come in"),
        ({"watch": WATCH | {"every": 0}}, "watch.every=0 never ends"),
        ({"options": ["red", "blue"], "answer": "A"}, "a question with watch has no options"),
    ],
)
def test_a_question_that_cannot_wait_is_told(row, words, tmp_path):
    whole = {"video": "v.mp4", "question": "Why?", "asked_at": 1, "watch": WATCH} | row
    found, bad = collected(write(tmp_path / "jobs.json", [whole]))
    assert found == [] and words in bad[0].why, bad


def test_a_question_that_does_not_wait_keeps_its_digest():
    """A run of an earlier version goes on."""
    plain = Job("1", "v.mp4", "Why?", ("red", "blue"))
    assert plain.digest() == "5473720f"
    other = replace(plain, watch=Watch("Now?", 3.0, 5.0))
    assert other.digest() != plain.digest() != replace(plain, query="red").digest()


def test_vnbench_rows_are_those_of_the_needle_benchmark():
    """Four tries at a question: one group, the letter of each, and the prompt word by word."""
    rows = vnbench.tries(
        "./VNBench/x_ret_edit1.mp4",
        "ret_edit1",
        "What?",
        ["Ann", "Bob", "Eve", "Jim"],
        2,
        [3.0],
        20.0,
    )
    config = compose("batch", ["annotations=vnbench", "option_choice=parse"])
    annotations: Annotations = instantiate("annotations", config.annotations)
    found, bad = jobs.collect(
        [Entry(str(i), row) for i, row in enumerate(rows)], annotations, Path(".")
    )
    assert (
        bad == []
        and len({job.id for job in found}) == 4
        and {job.group for job in found} == {"x_ret_edit1"}
    )
    assert [job.letter for job in found] == [row["gt_option"] for row in rows]
    assert [render_prompt(config.option_choice["prompt"], job) for job in found] == [
        vnbench.prompt(row) for row in rows
    ]


def test_hidden_answers_are_taken_when_told():
    row = {"question_idx": 1, "video_idx": "v", "question": "q", "option": OPTIONS}
    annotations = benchmark("egoschema")
    found, bad = jobs.collect([Entry("x", row)], annotations, Path("."), unlabelled=True)
    assert bad == [] and (found[0].letter, found[0].answer) == (None, None)
    found, bad = jobs.collect([Entry("x", row)], annotations, Path("."))
    assert found == [] and "unlabelled=true" in bad[0].why
