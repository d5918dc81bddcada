"""Every option of score= says what its role promises; a new one is picked up from its YAML alone.

Deterministic, in range, 0 or nothing for an empty answer, best for a perfect one, an error and no
number for what cannot be scored, and nothing where there is nothing to compare with.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from encoders.errors import UserError
from pipeline.batch.scores.score_rows import build_scorers
from pipeline.config.compose import compose
from pipeline.schema import Basis
from pipeline.scorers.schema import AnsweredQuestion, Score, Scorer
from tests.support.chat_server import MODEL, Asked, Reply, chat_server
from tests.support.paths import CONF

OPTIONS = sorted(file.stem for file in (CONF / "score").glob("*.yaml"))
EVIDENCE = ((10.0, 20.0), (40.0, 50.0))
SPANS: dict[str, Any] = dict.fromkeys(("evidence", "recalled", "cited"), EVIDENCE) | {
    "best": EVIDENCE[0],
    "basis": tuple(Basis("s", (span,)) for span in EVIDENCE),
}
OPEN = AnsweredQuestion(
    "open", "a.mp4", "What?", "red ball", references=("red ball", "The red ball."), **SPANS
)
NUMBER = AnsweredQuestion("number", "a.mp4", "How many?", "12", references=("12",), rule="number")
CHOICE = AnsweredQuestion(
    "choice", "b.mp4", "Which?", "red", options=("red", "blue"), letter="A", choice="A", **SPANS
)
TOGETHER = [
    replace(CHOICE, id=f"{name}-{number}", video=f"{name}.mp4", group=name, pair=name)
    for name in ("c", "d")
    for number in range(2)
]
SEARCH = AnsweredQuestion(
    "search", "a.mp4", "When?", "", evidence=EVIDENCE[1:], recalled=EVIDENCE[1:],
    cited=EVIDENCE[1:], best=EVIDENCE[1], found=(EVIDENCE[1], (60.0, 61.0)),
)  # fmt: skip
WATCH = AnsweredQuestion(
    "watch", "a.mp4", "Say when.", "red", references=("red",), rule="contains", in_time=True
)
PERFECT = [OPEN, NUMBER, CHOICE, *TOGETHER, SEARCH, WATCH]
UNKNOWN = [
    AnsweredQuestion("1", "a.mp4", "q", "something"),
    AnsweredQuestion("2", "a.mp4", "q", "red", options=("red", "blue"), choice="B"),
]


def emptied(question: AnsweredQuestion) -> AnsweredQuestion:
    """An answer that says, reads and cites nothing."""
    return replace(
        question, answer="", choice=None, recalled=(), cited=(), best=None, basis=(),
        found=None if question.found is None else (),
        in_time=None if question.in_time is None else False,
    )  # fmt: skip


def changed(question: AnsweredQuestion) -> AnsweredQuestion:
    """A wrong answer that reads and cites other seconds, and some of the right ones."""
    spans = ((18.0, 24.0), (60.0, 61.0))
    return replace(
        question,
        answer="13 green cubes",
        choice="B" if question.options else None,
        recalled=spans,
        cited=spans,
        best=spans[1],
        basis=(Basis("s", spans), Basis("t", ())),
        found=None if question.found is None else spans,
        in_time=None if question.in_time is None else False,
    )


def judge(asked: Asked) -> Reply:
    """A judge that compares texts."""
    text = asked.texts[0]
    said = text.split("Predicted Answer: ")[1].split("\n")[0]
    is_right = said in text.split("Correct Answer: ")[1].split("\nPredicted")[0]
    return Reply("{'pred': 'yes', 'score': 5}" if is_right else "{'pred': 'no', 'score': 1}")


@pytest.fixture(scope="module", params=OPTIONS)
def scorer(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scorer]:
    name = request.param
    if name != "judge":
        yield build_scorers(compose("batch", [f"score=[{name}]"]).score)[name]
        return
    with chat_server(answer=judge) as server:
        config = compose(
            "batch",
            [
                "score=[judge]",
                f"score.judge.model.url={server.url}",
                f"score.judge.model.model={MODEL}",
                f"score.judge.cache={tmp_path_factory.mktemp('judge')}",
            ],
        )
        yield build_scorers(config.score)[name]
        assert server.mistakes == []


def check(scorer: Scorer, scores: list[Score], questions: list[AnsweredQuestion]) -> None:
    assert len(scores) == len(questions)
    for score in scores:
        assert score.numbers.keys() in (set(), scorer.best.keys())
        for name, value in score.numbers.items():
            assert isinstance(value, float) and 0 <= value <= scorer.best[name]
            assert math.isfinite(value)
        assert not (score.error and score.numbers) and "\n" not in score.error


def test_a_perfect_answer_has_the_best_score(scorer: Scorer):
    scores = scorer(PERFECT)
    check(scorer, scores, PERFECT)
    given = [score.numbers for score in scores if score.numbers]
    assert given and all(numbers == scorer.best for numbers in given)
    assert not any(score.error for score in scores)


def test_an_empty_answer_has_the_worst(scorer: Scorer):
    questions = [emptied(one) for one in PERFECT]
    scores = scorer(questions)
    check(scorer, scores, questions)
    perfect = scorer(PERFECT)
    assert [bool(one.numbers) for one in scores] == [bool(one.numbers) for one in perfect]
    assert {value for one in scores for value in one.numbers.values()} == {0.0}


def test_the_same_answers_give_the_same_in_any_order(scorer: Scorer):
    questions = [*PERFECT, *(changed(replace(one, id=f"x{one.id}", group=f"x{one.group}",
                 pair=f"x{one.pair}")) for one in PERFECT[2:])]  # fmt: skip
    first = scorer(questions)
    check(scorer, first, questions)
    assert scorer(questions) == first
    values = sorted(str(dict(one.numbers)) for one in first)
    assert sorted(str(dict(one.numbers)) for one in scorer(questions[::-1])) == values


def test_a_wrong_answer_scores_less(scorer: Scorer):
    questions = [changed(one) for one in PERFECT]
    scores = scorer(questions)
    check(scorer, scores, questions)
    for score in scores:
        assert all(value < scorer.best[name] or name == "cited"
                   for name, value in score.numbers.items())  # fmt: skip


def test_where_nothing_is_known_there_is_no_number(scorer: Scorer):
    scores = scorer(UNKNOWN)
    check(scorer, scores, UNKNOWN)
    assert not any(score.numbers for score in scores)
    assert scorer([]) == []


BROKEN = {
    "evidence": ({"evidence": ((3.0, 1.0),)}, "is no start and end in seconds"),
    "letter": ({"letter": "C"}, "the right option is C, and it has 2 options"),
    "choice": ({"choice": "é"}, "the choice is é, and it has 2 options"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_row_is_refused_in_one_sentence(name):
    fields, words = BROKEN[name]
    with pytest.raises(UserError, match=words) as refusal:
        replace(CHOICE, **fields)
    assert "choice: " in str(refusal.value) and "\n" not in str(refusal.value)


def test_a_pair_is_two_rows():
    pairs = build_scorers(compose("batch", ["score=[pair]"]).score)["pair"]
    rows_of = {"1 answered row ": TOGETHER[:1], "3 answered": [*TOGETHER, TOGETHER[0]]}
    for count, rows in rows_of.items():
        errors = [score.error for score in pairs(rows)]
        assert errors[0].startswith(f"pair 'c' has {count}") and "instead of 2" in errors[0]


def test_one_wrong_question_makes_its_group_wrong():
    groups = build_scorers(compose("batch", ["score=[group,pair]"]).score)
    rows = [*TOGETHER[:3], changed(TOGETHER[3])]
    for name, scorer in groups.items():
        assert [dict(score.numbers) for score in scorer(rows)] == [
            {name: 1.0}, {}, {name: 0.0}, {}
        ]  # fmt: skip
    unlabelled = [*TOGETHER[:1], replace(TOGETHER[1], letter=None)]
    assert not any(score.numbers for score in groups["group"](unlabelled))
