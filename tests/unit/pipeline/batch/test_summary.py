"""Figures of a run from rows written by hand, and the progress line."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.batch import progress, summary, tasks
from pipeline.batch.compute.rows import empty_row, failure
from pipeline.batch.run_folder import to_table
from pipeline.batch.schema import EncodeProgress, Job, QuestionAnswered, Task
from pipeline.batch.scores.score_rows import build_scorers, question_of, score_rows, with_metrics
from pipeline.config.compose import compose


def row(video: str, right: bool | None, **cells: Any) -> dict[str, Any]:
    plain = empty_row(Task(video, (video,), 0.0, None, "bank", True, (), ()), Job("1", video, "q"))
    return plain | {"right": right, "video_seconds": 60.0} | cells


def scored(rows: list[dict[str, Any]], *names: str) -> dict[str, Any]:
    """The figures of rows whose answers are right or wrong as `right` says, scored by options."""
    rows = [
        one
        | {"id": str(number)}
        | ({} if one["right"] is None else {"truth": "x", "answer": "x" if one["right"] else "y"})
        for number, one in enumerate(rows)
    ]
    scorers = build_scorers(compose("batch", [f"score=[{','.join(names)}]"]).score)
    return summary.summary(rows, len(rows), 0, score_rows(rows, scorers), scorers)


def test_what_names_no_option_is_wrong_and_what_failed_has_no_outcome():
    rows = [
        row("a", True, options=["x", "y"], choice="A"),
        row("a", False, options=["x", "y"], choice=None),
        row("b", None),
        row("c", None, error="gone"),
    ]
    told = summary.summary(rows, asked=5, rejected=2)
    assert (
        told["asked"],
        told["answered"],
        told["failed"],
        told["bad_rows"],
        told["unparsed"],
    ) == (5, 3, 1, 2, 1)
    assert (told["accuracy"]["share"], told["accuracy"]["n"]) == (0.5, 2)
    assert summary.summary([row("a", None)], 1, 0)["accuracy"] == {"share": None, "n": 0}


def test_four_tries_count_together_and_tasks_alike():
    """VNBench: two videos of one task, one of another. A video counts if all tries are right."""
    tries = [("a", "ret", 4), ("b", "ret", 3), ("c", "cnt", 4)]
    rows = [
        row(name, n < hits, task=task, group=name) for name, task, hits in tries for n in range(4)
    ]
    told = scored(rows, "group")["scores"]["group"]
    assert (told["all"]["mean"], told["all"]["n"]) == (pytest.approx(2 / 3), 3)
    assert {name: one["mean"] for name, one in told["per_task"].items()} == {"cnt": 1, "ret": 0.5}
    assert told["mean_over_tasks"] == 0.75


def test_a_group_with_a_failed_question_waits_for_its_answer():
    rows = [row("a", True, group="g"), row("a", None, group="g", error="gone"),
            row("a", False, group="h")]  # fmt: skip
    assert scored(rows, "group")["scores"]["group"]["all"]["n"] == 1


@pytest.mark.parametrize(
    ("text", "right"),
    [("3", True), ("The answer is 3.", True), ("1 or 2", False), ("three", False), ("13", False)],
)
def test_a_number_is_right_by_its_digits(text, right):
    one = row("v", None, truth="3", answer=text)
    assert question_of(one | {"rule": "number"}).right == right
    assert question_of(one).right == (text == "3")


def test_intervals_are_clustered_by_video():
    """Ten equal answers of one video count as one: a resample has all of them or none."""
    alike = [row(str(video), video % 2 == 0) for video in range(4) for _ in range(10)]
    spread = [row(str(number), number % 2 == 0) for number in range(40)]
    few, many = summary.accuracy(alike), summary.accuracy(spread)
    assert few["share"] == many["share"] == 0.5
    assert few["high"] - few["low"] > 2 * (many["high"] - many["low"])


def test_tasks_groups_durations_and_evidence():
    rows = [
        row("a", True, task="t", group="1", evidence=[[1, 3]], spans=[[2, 3]], category="c"),
        row("a", True, task="t", group="1", evidence=[[1, 3]], spans=[[7, 8]]),
        row("b", True, task="t", group="2", video_seconds=120.0),
        row("b", False, task="u", group="2", video_seconds=7200.0, duration="long"),
    ]
    told = scored(rows, "exact", "group", "citation")
    assert {name: some["share"] for name, some in told["per_task"].items()} == {"t": 1.0, "u": 0.0}
    assert told["mean_over_tasks"] == 0.5 and told["accuracy"]["share"] == 0.75
    assert {name: some["n"] for name, some in told["per_duration"].items()} == {
        "under 2 min": 2,
        "2 to 15 min": 1,
        "long": 1,
    }
    own = {name: (one["all"]["mean"], one["all"]["n"]) for name, one in told["scores"].items()}
    assert own == {
        "exact": (0.75, 4),
        "group": (0.5, 2),
        "citation_precision": (0.5, 2),
        "citation_recall": (0.5, 2),
        "citation_f1": (0.5, 2),
    }
    assert told["scores"]["exact"]["per_category"]["c"]["n"] == 1
    text = summary.as_text(told | {"failures": []}, Path("out")).splitlines()
    assert text[1].split() == ("scores, 95 % interval over videos accuracy group".split())
    assert text[2].startswith("all") and "75.0 (50.0-100.0), n=4" in text[2]
    assert any(line.split()[0] == "c" for line in text)
    assert all(len(line) <= 100 for line in text)


def test_rows_of_earlier_versions_are_scored():
    """They lack what later versions added; a damaged one is told, and the others go on."""
    new = ("accepted", "rule", "recalled", "basis", "evidence", "category", "pair")
    old = {name: cell for name, cell in row("a", True, id="1", truth="x", answer="x").items()
           if name not in new}  # fmt: skip
    damaged = {name: cell for name, cell in old.items() if name != "truth"} | {"id": "2"}
    scorers = build_scorers(compose("batch", []).score)
    rows = score_rows([old, damaged], scorers)
    assert rows[0]["metrics"] == {"exact": 1.0} and not rows[0]["errors"]
    assert set(rows[1]["errors"]) == set(scorers)
    assert "the row of id 2 is no row of a batch ('truth')" in rows[1]["errors"]["exact"]
    table = to_table(with_metrics([old], rows[:1])).to_pylist()[0]
    assert table["metrics"] == [("exact", 1.0)] and table["pair"] is None


def test_progress_counts_videos_questions_and_failures():
    pairs = {name: (Job("1", name, "q"), Job("2", name, "q")) for name in ("a.mp4", "b.mp4")}
    tasks = [
        Task(name, (name,), 0.0, None, "", False, (pair,), pair) for name, pair in pairs.items()
    ]
    counts = progress._Counts(tasks)
    counts.update(EncodeProgress("a.mp4", 8.0, 120.0))
    assert (
        progress.status_line(counts, 5)
        == "videos 0 of 2, questions 0 of 4, 0 failed, no answer yet; encoding a.mp4: 8 of 120 s"
    )
    counts.update(QuestionAnswered(row("a.mp4", True)))
    counts.update(failure(tasks[0], tasks[0].jobs[1], "broken"))
    assert progress.status_line(counts, 10).startswith(
        "videos 1 of 2, questions 2 of 4, 1 failed, 10 s left; "
    )


def test_groups_do_not_depend_on_what_is_left(tmp_path):
    jobs = [
        Job(
            str(i),
            f"v{i % 2}",
            "q",
            ("a", "b") if i % 3 else (),
            asked_at=None if i % 5 else float(i),
        )
        for i in range(40)
    ]
    whole = tasks.plan_tasks(jobs, [], tmp_path, batch_size=4)
    left = tasks.plan_tasks(
        jobs,
        [],
        tmp_path,
        batch_size=4,
        answered={job.id for job in jobs[:31]} | {"35", "37", "39"},
    )
    assert [len(task.jobs) for task in left] == [4, 2] and [len(task.jobs) for task in whole] == [
        20,
        20,
    ]
    assert [task.groups for task in left] == [task.groups for task in whole]
    for task in whole:
        asked = [job for group in task.groups for job in group]
        assert sorted(job.id for job in asked) == sorted(job.id for job in task.jobs)
        assert [len(group) for group in task.groups] == [4] * 5
        moments = [job.asked_at for job in asked]
        assert moments == sorted(
            moments, key=lambda moment: float("inf") if moment is None else moment
        )
    assert not tasks.plan_tasks(jobs, [], tmp_path, answered={job.id for job in jobs})
