"""The planner that asks a model: what its answers mean, and what happens without weights in them.

Real forwards of small models.
"""

import json
import math

import pytest

from encoders.errors import UserError
from encoders.models.families.llava_onevision import LlavaOneVision
from pipeline.config.task_settings import WEIGHTS
from pipeline.moments.local_text_model import LocalTextModel
from pipeline.moments.model_planner import ModelAnswer, ModelPlanner, parse_answer, plan_from_answer
from pipeline.query import plan as planner
from tests.support.chat_server import MODEL, Reply, chat_server
from tests.support.talks import WORDS
from tests.support.toys import toy_checkpoint, toy_parts

WEIGHTS_SAID = '{"said": 3, "written": 0, "seen": 0, "from": null, "to": null}'
QUESTION = "what is written on the sign in the first half?"


def toy_model(says: str = "") -> LocalTextModel:
    return LocalTextModel(LlavaOneVision(str(toy_checkpoint(says=says))))


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (
            '{"said": 1, "written": 0, "seen": 3}',
            ModelAnswer({"said": 1, "written": 0, "seen": 3}, None),
        ),
        (
            'Sure!\n```json\n{"said": 0, "written": 2, "seen": 1, "from": 60, "to": 90.5}\n```',
            ModelAnswer({"said": 0, "written": 2, "seen": 1}, (60.0, 90.5)),
        ),
        (
            '{"said": 2, "written": 0, "seen": 0, "from": null, "to": null}',
            ModelAnswer({"said": 2, "written": 0, "seen": 0}, None),
        ),
        ('{"said": 2, "from": 90, "to": 60}', ModelAnswer({"said": 2}, None)),
        ("said: 3, written = 0; seen 1", ModelAnswer({"said": 3, "written": 0, "seen": 1}, None)),
        ("**said**: 2", ModelAnswer({"said": 2}, None)),
        ('{"said": 0, "written": 0, "seen": 0}', None),
        ('{"said": 7}', None),
        ('{"said": 0.5}', None),
        ("red star", None),
        ("it was said in 3 places", None),
        ("", None),
    ],
)
def test_answers_are_read_or_are_none(answer: str, said: ModelAnswer | None) -> None:
    assert parse_answer(answer) == said


def test_what_a_model_says_becomes_weights() -> None:
    """A real forward of a small model that was made to say so."""
    made = ModelPlanner(model=lambda: toy_model("said 3"))
    assert made.answer(QUESTION) == "said 3"
    plan, rules = made(QUESTION), planner.plan(QUESTION)
    assert plan.weights == rules.weights | {"subtitle": 3.0, "speech": 3.0}
    assert (plan.query, plan.time.span(100.0), plan.note) == (rules.query, (0.0, 50.0), "")


def test_what_no_one_can_read_is_left_to_the_rules() -> None:
    """The embedded model answers questions about cards, whatever it is asked."""
    made = ModelPlanner(
        model=lambda: LocalTextModel(LlavaOneVision(str(WEIGHTS / "video_llm"))), max_new_tokens=16
    )
    plan, rules = made("bread after 0:12"), planner.plan("bread after 0:12")
    assert (plan.query, plan.weights, plan.time.span(99.0)) == (
        rules.query,
        rules.weights,
        (12.0, math.inf),
    )
    assert (
        plan.note.startswith("planner=model: the model's answer ('")
        and "rules are used" in plan.note
    )


def test_a_stretch_of_time_from_the_model_takes_the_rules_place() -> None:
    plan = plan_from_answer(QUESTION, '{"said": 0, "written": 3, "seen": 0, "from": 5, "to": 9}')
    assert plan.time.span(1000.0) == (5.0, 9.0) and plan.weights["ocr"] == 3.0
    assert plan.weights["subtitle"] == pytest.approx(0.2) and plan.weights[
        "picture"
    ] == pytest.approx(0.2)
    with pytest.raises(UserError, match=r"planner\.max_new_tokens=0"):
        ModelPlanner(model=toy_model, max_new_tokens=0)


@pytest.mark.slow  # seconds of CPU
def test_the_command_uses_it_and_says_when_it_does_not(run, bank, film) -> None:
    asked = ("find", f"bank={bank}", "query=bread", WORDS, "format=json", "planner=model")
    code, out, err = run(*asked, *toy_parts(says="red star"))
    plain = run(*asked[:-1])[1]
    assert (
        code == 0
        and json.loads(out) == json.loads(plain)
        and "'red star'" in err
        and err.count("\n") == 1
    )
    code, out, err = run(*asked, *toy_parts(says="said 3"))
    assert (code, err) == (0, "") and json.loads(out)["moments"][0]["score"] > json.loads(plain)[
        "moments"
    ][0]["score"]


def test_a_model_behind_an_address_plans_as_well(run, bank) -> None:
    """It is asked once, without a picture; a thought before its answer does not count."""
    asked = ("find", f"bank={bank}", "query=bread", WORDS, "format=json")
    plain = json.loads(run(*asked)[1])["moments"]
    with chat_server(answer=lambda each: Reply(f"<think>said: 1</think>{WEIGHTS_SAID}")) as server:
        endpoint = ("planner=model", "backbone=endpoint", f"backbone.url={server.url}",
                    f"backbone.model={MODEL}", "backbone.answer_form=json")  # fmt: skip
        code, out, err = run(*asked, *endpoint)
        (request,) = server.asked
        assert (code, err, server.mistakes, request.pictures) == (0, "", [], [])
        assert json.loads(out)["moments"][0]["score"] > plain[0]["score"]
        assert request.body["max_tokens"] == 64 and "response_format" not in request.body
        assert "Somebody searches a video for this: bread" in request.texts[0]
        server.answer = lambda each: Reply(status=401, body={"error": {"message": "no"}})
        code, out, err = run(*asked, *endpoint)
        assert code == 0 and json.loads(out)["moments"] == plain
        assert err.startswith(f"reelbank: warning: planner=model: {server.url} refuses the key")
        assert err.endswith("; the rules are used\n") and err.count("\n") == 1
