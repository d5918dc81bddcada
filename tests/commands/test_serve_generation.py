"""What a chat request says of its answer: its length, its end, chance, several of them, system
messages and earlier rounds. OpenAI's own client, a real server, a small random model.
"""

from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import openai
import pytest
from pydantic import BaseModel, Field

from tests.support.serving import film, serving
from tests.support.toys import toy_parts

QUESTION = {"type": "text", "text": "What is on the card?"}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory):
    overrides = (
        "seconds=60", "text=none", "reader.max_new_tokens=12", "round_tokens=40", "answer_tokens=64"
    )  # fmt: skip
    with serving(tmp_path_factory.mktemp("served"), *toy_parts(), *overrides) as (address, _):
        yield openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0, timeout=60)


@pytest.fixture(scope="module")
def file_id(client: openai.OpenAI, tmp_path_factory: pytest.TempPathFactory) -> str:
    path: Path = film(tmp_path_factory.mktemp("films") / "a.mp4", "code:4821@2", seconds=6)
    return client.files.create(file=path, purpose="user_data").id


@pytest.fixture
def ask(client: openai.OpenAI, file_id: str):
    def call(*before: dict[str, str], **fields: Any) -> Any:
        part = {"type": "file", "file": {"file_id": file_id}}
        messages: Any = [*before, {"role": "user", "content": [part, QUESTION]}]
        return client.chat.completions.create(
            model="reelbank",
            messages=messages,
            extra_body={"cite_in_text": False},
            **fields,
        )

    return call


def schema_of(schema: dict[str, Any]) -> Any:
    return {"type": "json_schema", "json_schema": {"name": "card", "schema": schema}}


def text_of(completion: Any, index: int = 0) -> str:
    return completion.choices[index].message.content


def test_length_and_stop_texts_end_an_answer(ask) -> None:
    whole = ask()
    assert whole.choices[0].finish_reason == "length" and whole.usage.completion_tokens == 12
    for name in ("max_tokens", "max_completion_tokens"):
        brief = ask(**{name: 3})
        assert brief.choices[0].finish_reason == "length" and brief.usage.completion_tokens == 3
        assert text_of(whole).startswith(text_of(brief)) and text_of(brief) != text_of(whole)
    longer = ask(max_tokens=20)  # than what the reader writes where nobody says how much
    assert longer.usage.completion_tokens == 20 and text_of(longer).startswith(text_of(whole))
    word = text_of(whole)[len(text_of(brief)) + 1 :][:4]
    before = text_of(whole).partition(word)[0]
    stopped = ask(stop=["\x00never", word])
    assert text_of(stopped) == before and stopped.choices[0].finish_reason == "stop"
    assert not hasattr(stopped.choices[0].message, "warning")
    stream = list(ask(stop=word, stream=True, stream_options={"include_usage": True}))
    pieces = [one.choices[0].delta.content or "" for one in stream if one.choices]
    assert "".join(pieces) == before and stream[-1].usage == stopped.usage
    assert [one.choices[0].finish_reason for one in stream[:-1]][-1] == "stop"
    silent = ask(stop=text_of(whole)[0])  # before the first letter
    assert text_of(silent) == "" and silent.choices[0].finish_reason == "stop"
    assert silent.usage.completion_tokens and not silent.choices[0].message.citations
    pieces = [one.choices[0].delta.content for one in ask(stop=text_of(whole)[0], stream=True)]
    assert not any(pieces)


def test_chance_is_repeated_by_its_seed(ask) -> None:
    greedy = text_of(ask())
    assert text_of(ask(temperature=0, seed=5)) == greedy == text_of(ask(temperature=1.5, top_p=0))
    some = [text_of(ask(temperature=1.9, seed=seed)) for seed in (7, 7, 8)]
    assert some[0] == some[1] != some[2]
    two = ask(temperature=1.9, seed=7, n=2)
    assert [text_of(two, 0), text_of(two, 1)] == [some[0], some[2]]
    assert [one.index for one in two.choices] == [0, 1] and two.usage.completion_tokens == 24
    texts = ["", ""]
    for chunk in ask(temperature=1.9, seed=7, n=2, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert texts == [some[0], some[2]]


def test_system_messages_and_rounds_are_read_within_a_budget(ask) -> None:
    plain = ask()
    system = ask({"role": "system", "content": "Answer with one word, and nothing else."})
    assert system.usage.prompt_tokens > plain.usage.prompt_tokens + 5
    lead, chance = {"role": "developer", "content": "Be brief."}, {"temperature": 1.9, "seed": 7}
    assert text_of(ask(lead, **chance)) != text_of(ask(**chance))  # the model reads it
    assert not hasattr(system.choices[0].message, "warning")
    old = [
        {"role": "user", "content": f"{'very ' * 30}old?"},
        {"role": "assistant", "content": "Yes"},
    ]
    new = [
        {"role": "user", "content": "Is it red?"},
        {"role": "assistant", "content": "It is red."},
    ]
    one, both = ask(*new), ask(*old, *new)
    assert plain.usage.prompt_tokens < one.usage.prompt_tokens == both.usage.prompt_tokens
    assert text_of(one) == text_of(both)
    refusal: Any = {"role": "assistant", "content": [{"type": "refusal", "refusal": "It is red."}]}
    assert ask(new[0], refusal).usage == one.usage


class Card(BaseModel):
    """What a client wants to know of a card."""

    code: str = Field(pattern="^[0-9]{4}$")
    sure: bool
    kind: Literal["code", "name"]


def test_an_answer_fits_the_json_schema_that_a_client_sends(client, file_id, ask) -> None:
    """A random model, which would write no JSON by itself."""
    for more in ({}, {"temperature": 1.9, "seed": 7, "n": 2}):
        done = ask(response_format=schema_of(Card.model_json_schema()), max_tokens=64, **more)
        for choice in done.choices:
            Card.model_validate_json(choice.message.content)
            assert choice.finish_reason == "stop" and choice.message.citations is not None
    part: Any = {"type": "file", "file": {"file_id": file_id}}
    messages: Any = [{"role": "user", "content": [part, QUESTION]}]
    parsed = client.chat.completions.parse(
        model="reelbank", messages=messages, response_format=Card, max_tokens=64
    )
    card = parsed.choices[0].message.parsed
    assert card is not None
    pieces = [
        one.choices[0].delta.content or ""
        for one in ask(
            response_format=schema_of(Card.model_json_schema()), max_tokens=64, stream=True
        )
    ]
    assert Card.model_validate_json("".join(pieces)) == card
    parts: Any = [
        {"type": "input_file", "file_id": file_id},
        {"type": "input_text", "text": QUESTION["text"]},
    ]
    same = client.responses.parse(
        model="reelbank",
        input=[{"role": "user", "content": parts}],
        text_format=Card,
        max_output_tokens=64,
    )
    assert same.output_parsed == card and same.text.format.type == "json_schema"
    cut = ask(response_format=schema_of(Card.model_json_schema()), max_tokens=2)
    assert cut.choices[0].finish_reason == "length"


def test_openais_helpers_tell_an_answer_that_is_cut(client, file_id, ask) -> None:
    """`parse` and `stream` of OpenAI's client, where max_tokens or stop ends an answer early."""
    part: Any = {"type": "file", "file": {"file_id": file_id}}
    messages: Any = [{"role": "user", "content": [part, QUESTION]}]
    asked: Any = {"model": "reelbank", "messages": messages}
    with pytest.raises(openai.LengthFinishReasonError) as cut:
        client.chat.completions.parse(**asked, response_format=Card, max_tokens=2)
    assert cut.value.completion.choices[0].finish_reason == "length"
    with (
        client.chat.completions.stream(**asked, response_format=Card, max_tokens=2) as events,
        pytest.raises(openai.LengthFinishReasonError),
    ):
        events.until_done()
    asked["extra_body"] = {"cite_in_text": False}
    whole = text_of(ask())
    for fields, text in (
        ({"max_tokens": 3}, text_of(ask(max_tokens=3))),
        ({"stop": whole[4:8]}, whole.partition(whole[4:8])[0]),
    ):
        with client.chat.completions.stream(**asked, **fields) as events:
            pieces = [each.delta for each in events if each.type == "content.delta"]
            final = events.current_completion_snapshot
        assert "".join(pieces) == text_of(final) == text
        # the helper raises for an answer that is cut, whoever gave it
        with (
            pytest.raises(openai.LengthFinishReasonError)
            if fields.get("max_tokens")
            else (nullcontext())
        ):
            assert events.get_final_completion().choices[0].finish_reason == "stop"
    content: Any = [
        {"type": "input_file", "file_id": file_id},
        {"type": "input_text", "text": QUESTION["text"]},
    ]
    same: Any = {"model": "reelbank", "input": [{"role": "user", "content": content}]}
    with client.responses.stream(**same, max_output_tokens=3) as events:
        last = list(events)[-1]
    assert last.type == "response.incomplete" and last.response.output_text
    assert last.response.incomplete_details.reason == "max_output_tokens"


def test_the_responses_api_gives_the_same_answer(client, file_id, ask) -> None:
    parts: Any = [
        {"type": "input_file", "file_id": file_id},
        {"type": "input_text", "text": QUESTION["text"]},
    ]
    asked: Any = [{"role": "user", "content": parts}]
    same: Any = {"model": "reelbank", "input": asked, "extra_body": {"cite_in_text": False}}
    chat, done = ask(), client.responses.create(**same)
    assert done.output_text == text_of(chat)
    assert (done.status, done.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert done.output[0].citations == chat.choices[0].message.citations
    counts = chat.usage.prompt_tokens, chat.usage.completion_tokens
    assert (done.usage.input_tokens, done.usage.output_tokens) == counts
    events = list(client.responses.create(**same, stream=True, max_output_tokens=3))
    pieces = [one.delta for one in events if one.type == "response.output_text.delta"]
    assert "".join(pieces) == text_of(ask(max_tokens=3)) == events[-1].response.output_text
    assert [one.sequence_number for one in events] == list(range(len(events)))
    led = client.responses.create(**same, instructions="Be brief.")
    assert led.usage.input_tokens > done.usage.input_tokens and led.instructions == "Be brief."
    for wrong, says in (
        ({"previous_response_id": "resp_1"}, "responses are not stored"),
        ({"input": [{"type": "reasoning"}]}, "only messages are taken"),
        ({"input": []}, "the user's"),
        ({"extra_body": {"n": 2}}, "there is one response"),
        ({"text": {"format": {"type": "grammar"}}}, "response_format has the type text"),
    ):
        with pytest.raises((openai.BadRequestError, openai.UnprocessableEntityError), match=says):
            client.responses.create(**{**same, **wrong})


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"logprobs": True, "top_logprobs": 2}, "logprobs are not given here"),
        ({"response_format": {"type": "grammar"}}, "response_format has the type text"),
        ({"response_format": {"type": "json_schema"}}, "json_schema has no schema"),
        ({"response_format": schema_of({"type": "nosuch"})}, "cannot be kept to: Invalid type"),
        ({"response_format": schema_of({"enum": ["x" * 20_000]})}, "at most 16384 letters"),
        ({"max_tokens": 65}, "max_tokens is 65, and an answer has at most 64 tokens here"),
        ({"n": 99}, "less than or equal to 8"),
        ({"temperature": 3}, "less than or equal to 2"),
        ({"stop": ["x" * 300]}, "at most 256 letters"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools are not supported"),
    ],
)
def test_what_cannot_be_is_refused_in_openais_form(ask, fields, says) -> None:
    with pytest.raises((openai.BadRequestError, openai.UnprocessableEntityError)) as refused:
        ask(**fields)
    error = refused.value
    assert says in error.message and error.param in (*fields, None)
    assert error.type == "invalid_request_error"
