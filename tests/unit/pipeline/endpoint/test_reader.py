"""What a question asks of its answer reaches the server of a model behind an address."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest

from encoders.errors import UserError
from encoders.models.generation import Generation
from encoders.text.lines import TextLine
from memory.schema import Question
from pipeline.answer.strategies.mapping.text_levels import text_context
from pipeline.endpoint.endpoint import Endpoint
from pipeline.endpoint.reader import EndpointReader
from pipeline.runtime.stage_timer import StageTimer
from pipeline.schema import Reading
from tests.support.chat_server import MODEL, ChatServer, Reply, chat_server

SCHEMA = '{"type": "object", "required": ["code"]}'
LINE = TextLine("film", 1.0, 2.0, "subtitle", "The code is 4821.", 2.0)


@contextmanager
def reading(*replies: Reply) -> Iterator[tuple[ChatServer, Any]]:
    with chat_server() as server:
        server.replies = list(replies)
        endpoint = Endpoint(
            url=server.url, model=MODEL, images=False, context=4096, answer_form="json", tries=1
        )
        reader = EndpointReader(endpoint, cast(Any, None), search_ranks=False)

        def read(**how: Any) -> Reading:
            question = Question("Which code?", "film", generation=Generation(**how))
            return reader.read(text_context(question, [LINE], question.text), StageTimer())

        yield server, read
        endpoint.client.close()


def test_the_form_of_a_client_takes_the_place_of_our_own() -> None:
    with reading(Reply('{"code": 4821}'), Reply('{"a": 1}'), Reply('{"a"', finish="length")) as (
        server,
        read,
    ):
        assert read(form=SCHEMA).text == '{"code": 4821}'
        assert read(form='{"type": "object"}', max_tokens=9000).text == '{"a": 1}'
        assert read(form=SCHEMA, max_tokens=2).is_cut
        bodies = [asked.body for asked in server.asked]
    schema = bodies[0]["response_format"]["json_schema"]["schema"]
    assert schema == {"type": "object", "required": ["code"]}
    assert bodies[1]["response_format"] == {"type": "json_object"}
    assert [body["max_tokens"] for body in bodies] == [512, 9000, 2]
    assert "sources" not in str(bodies)  # nobody asks for them beside the client's form


def test_a_server_that_keeps_to_no_form_is_told_of() -> None:
    with (
        reading(Reply("The code is 4821.")) as (_, read),
        pytest.raises(UserError, match="did not keep to response_format; ask for the form"),
    ):
        read(form=SCHEMA)
