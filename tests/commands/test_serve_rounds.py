"""Conversations over HTTP: a follow-up in the messages of OpenAI's own client."""

from pathlib import Path

import openai
import pytest

from encoders.errors import UserError
from memory.schema import Question
from pipeline.config.compose import compose
from pipeline.conversation import round_memory
from pipeline.conversation.round import Round
from pipeline.conversation.round_memory import RoundMemory
from pipeline.server.command import build_service
from tests.support.serving import film, serving
from tests.support.toys import toy_backbone

SHAPE = "What shape is red?"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory):
    with serving(tmp_path_factory.mktemp("served"), "seconds=60") as both:
        yield both


@pytest.fixture(scope="module")
def client(server) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server[0]}/v1", api_key="none", max_retries=0, timeout=60)


@pytest.fixture(scope="module")
def stars(client: openai.OpenAI, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The id of a film with a red star at 4 s and a red heart at 14 s."""
    path = tmp_path_factory.mktemp("films") / "stars.mp4"
    film(path, "shape:red star@4", "shape:red heart@14", seconds=20)
    return client.files.create(file=path, purpose="user_data").id


class Chat:
    """A client that sends the whole conversation each time, as they do."""

    def __init__(self, client: openai.OpenAI, file_id: str, **extra: object) -> None:
        self.client, self.extra = client, extra
        self.messages: list = []
        self.file = {"type": "file", "file": {"file_id": file_id}}

    def ask(self, text: str, **extra: object):
        parts = [{"type": "text", "text": text}]
        self.messages.append(
            {"role": "user", "content": parts if self.messages else [self.file, *parts]}
        )
        done = self.client.chat.completions.create(
            model="reelbank", messages=self.messages, extra_body=self.extra | extra
        )
        message = done.choices[0].message
        self.messages.append({"role": "assistant", "content": message.content})
        return message


@pytest.mark.parametrize("in_text", [True, False])
def test_a_follow_up_goes_on_where_the_last_answer_ended(client, stars, in_text) -> None:
    chat = Chat(client, stars, cite_in_text=in_text)
    first = chat.ask(SHAPE, asked_at=10.0)
    assert first.content.startswith("star")
    assert ("Seen at" in first.content) == in_text
    after = chat.ask("And after that?")
    assert after.content.startswith("heart")
    assert after.citations[0]["start"] >= first.citations[-1]["end"]
    assert "and not read by the model" in after.warning
    assert chat.ask("And before that?").content.startswith("star")
    assert chat.ask("And after that?").content.startswith("heart")


def test_a_follow_up_of_an_answer_that_is_not_known_is_refused(client, stars) -> None:
    chat = Chat(client, stars)
    chat.ask(SHAPE)
    chat.messages[-1] = {"role": "assistant", "content": "a circle, I believe"}
    with pytest.raises(openai.BadRequestError, match="names no moment; ask a whole question"):
        chat.ask("And after that?")


def test_a_question_without_earlier_rounds_is_asked_as_it_stands(client, stars) -> None:
    assert Chat(client, stars).ask("And after that?").content  # nothing is refused


def test_the_model_reads_what_the_server_lets_it(server, tmp_path: Path) -> None:
    memory = RoundMemory(toy_backbone(), tell_rounds=1)
    history = memory.history("v", [("Who?", "Bob"), ("Where?", "At sea")])
    assert history.rounds == (Round("Who?", "Bob", (), ()), Round("Where?", "At sea", (), ()))
    assert memory.is_read and not RoundMemory(toy_backbone()).is_read
    asked = history.carry(Question("Why?", "v"))
    assert asked.prompt == "Earlier question: Where?\nAnswer: At sea\n\nWhy?"


def test_the_oldest_rounds_are_forgotten_first(client, stars, server, monkeypatch) -> None:
    monkeypatch.setattr(round_memory, "_MOST", 1)
    chat = Chat(client, stars)
    chat.ask(SHAPE)
    Chat(client, stars).ask("What is the code?")
    with pytest.raises(openai.BadRequestError, match="names no moment"):
        chat.ask("And after that?")


def test_rounds_for_a_model_that_reads_no_text_are_refused(tmp_path: Path) -> None:
    config = compose("serve", ["tell_rounds=2", f"bank={tmp_path / 'bank'}"])
    with pytest.raises(UserError, match="tell_rounds=2 needs a model that reads text"):
        build_service(config)
    assert not (tmp_path / "bank").exists()
