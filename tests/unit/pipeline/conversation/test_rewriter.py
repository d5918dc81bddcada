"""Questions that point back, written in full by a model."""

from pathlib import Path

import pytest

from encoders.errors import UserError
from memory.schema import FrameName
from pipeline.build import build_backbone, build_rewriter
from pipeline.config.compose import compose
from pipeline.config.tasks.question_settings import AskSettings
from pipeline.config.tasks.server_settings import DemoSettings, ServeSettings
from pipeline.conversation.history import History
from pipeline.conversation.rewriter import ModelRewriter, NoRewriter
from pipeline.conversation.round import Round
from tests.support.paths import ROOT
from tests.support.toys import toy_backbone, toy_parts

ROUNDS = [Round("Who enters?", "Alice", ((4.0, 6.0),), (FrameName("v", 4),))]


class Writer:
    """A text model that writes what it was given, and keeps the prompts."""

    def __init__(self, text: str) -> None:
        self.text, self.prompts = text, list[str]()

    def write(self, prompt: str, most_tokens: int) -> str:
        self.prompts.append(prompt)
        return self.text


def rewriter(writer: Writer) -> ModelRewriter:
    return ModelRewriter(64, backbone=toy_backbone(), model=lambda: writer)


@pytest.mark.parametrize(
    "question", ["What does she hold?", "And the other one?", "Why?", "Who else was there?"]
)
def test_a_question_that_points_back_is_written_in_full(question: str) -> None:
    writer = Writer('"What does Alice hold?"\nShe is named above.')
    assert rewriter(writer)(question, ROUNDS) == "What does Alice hold?"
    (prompt,) = writer.prompts
    assert "Earlier question: Who enters?\nAnswer: Alice" in prompt and question in prompt


@pytest.mark.parametrize(
    ("question", "rounds"), [("What is the code?", ROUNDS), ("What does she hold?", [])]
)
def test_the_model_is_not_asked_about_a_question_that_stands_alone(question, rounds) -> None:
    writer = Writer("Nonsense?")
    assert rewriter(writer)(question, rounds) == question and not writer.prompts


@pytest.mark.parametrize("text", ["", "I cannot tell.", "\n"])
def test_what_is_no_question_is_not_taken(text: str) -> None:
    assert rewriter(Writer(text))("What does she hold?", ROUNDS) == "What does she hold?"


def test_the_rules_come_first() -> None:
    writer = Writer("What is it?")
    history = History(toy_backbone(), rewriter=rewriter(writer))
    history.add(ROUNDS[0])
    assert history.resolve("And after that?").since == 6.0 and not writer.prompts
    assert history.resolve("What does she hold?").text == "What is it?"


@pytest.mark.parametrize("name", sorted(p.stem for p in (ROOT / "conf/follow_up").glob("*.yaml")))
@pytest.mark.parametrize("task", ["ask", "serve", "demo"])
def test_every_option_is_built_with_a_real_model(tmp_path: Path, name: str, task: str) -> None:
    config = compose(task, [f"follow_up={name}", *toy_parts(says="Who?")])
    assert isinstance(config, (AskSettings, ServeSettings, DemoSettings))
    built = build_rewriter(config.follow_up, build_backbone(config))
    assert built("What is the code?", ROUNDS) == "What is the code?"
    expected = "Who is she?" if isinstance(built, NoRewriter) else "Who?"
    assert built("Who is she?", ROUNDS) == expected


def test_a_model_that_reads_no_text_is_refused() -> None:
    config = compose("ask", ["follow_up=model"])
    with pytest.raises(UserError, match="follow_up=model needs a model that reads text"):
        build_rewriter(config.follow_up, build_backbone(config))
