"""Embeddings in OpenAI's form, and searches: OpenAI's own client, a real server, a small model."""

import base64
import io
import json
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import openai
import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from PIL import Image

from encoders.sources.pictures import pictures_at
from tests.support.serving import connect, film, post_json, serving
from tests.support.toys import toy_parts

JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("served")
    with serving(folder, *toy_parts(), "seconds=60", "text=none") as (address, service):
        yield address, service


@pytest.fixture(scope="module")
def client(server) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server[0]}/v1", api_key="none", max_retries=0, timeout=60)


@pytest.fixture(scope="module")
def card(server, client: openai.OpenAI, tmp_path_factory) -> tuple[str, Path]:
    """The id of an encoded film, and its path."""
    path = film(tmp_path_factory.mktemp("films") / "a.mp4", "shape:red star@2", seconds=12)
    file_id = client.files.create(file=path, purpose="user_data").id
    while client.files.retrieve(file_id).status != "processed":
        time.sleep(0.1)
    return file_id, path


def data_url(path: Path, second: float) -> str:
    (pixels,) = pictures_at(path, [second], 160)
    assert pixels is not None
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


@pytest.fixture(scope="module")
def embedder(server, client: openai.OpenAI) -> str:
    (name,) = httpx.get(f"{server[0]}/health").json()["embedders"]
    assert client.models.retrieve(name).id == name
    return name


@pytest.mark.slow
def test_texts_and_pictures_are_embedded_in_one_space(client, card, embedder) -> None:
    name, picture = embedder, data_url(card[1], 2.5)
    texts = ["a red star", "a blue circle"]
    reply = client.embeddings.create(model=name, input=[*texts, picture])
    rows = np.array([one.embedding for one in reply.data])
    assert [one.index for one in reply.data] == [0, 1, 2] and reply.model == name
    assert np.linalg.norm(rows, axis=1) == pytest.approx(1, abs=1e-4)
    assert reply.usage.prompt_tokens > 0
    plain = client.embeddings.create(model=name, input=texts[0], encoding_format="float")
    assert plain.data[0].embedding == pytest.approx(rows[0].tolist(), abs=1e-6)
    part = {"type": "image_url", "image_url": {"url": picture}}
    again = client.embeddings.create(model=name, input="", extra_body={"input": [part]})
    assert again.data[0].embedding == pytest.approx(rows[2].tolist(), abs=1e-6)


def test_a_picture_finds_its_moment_among_uploads_alone(server, client, card) -> None:
    file_id, path = card
    reply = httpx.post(
        f"{server[0]}/v1/search", json={"image": data_url(path, 2.5), "top": 2}, timeout=60
    )
    first = reply.json()["data"][0]
    assert first["file_id"] == file_id and first["filename"] == "a.mp4"
    assert 2 <= first["start"] < 4 and first["channels"] == ["picture"]
    named = httpx.post(
        f"{server[0]}/v1/search", json={"query": "red star", "videos": [file_id]}, timeout=60
    )
    assert {one["file_id"] for one in named.json()["data"]} == {file_id}


def test_the_api_describes_itself(server) -> None:
    """Each route, what it takes, and no page that loads scripts from elsewhere."""
    document = httpx.get(f"{server[0]}/openapi.json").json()
    for path in ("chat/completions", "responses", "embeddings", "search"):
        (kind,) = document["paths"][f"/v1/{path}"]["post"]["requestBody"]["content"].values()
        schema = kind["schema"] | {"components": document["components"]}
        assert list(Draft202012Validator(schema).iter_errors(7)), path  # refs lead somewhere
    chat = {"$ref": "#/components/schemas/ChatBody", "components": document["components"]}
    message = {"role": "user", "content": "What?"}
    assert Draft202012Validator(chat).is_valid({"model": "reelbank", "messages": [message]})
    assert not Draft202012Validator(chat).is_valid({"model": "reelbank", "messages": [{}]})
    assert {"get", "post"} == set(document["paths"]["/v1/files"])
    error = {"$ref": "#/components/schemas/Error", "components": document["components"]}
    refusal = httpx.post(f"{server[0]}/v1/search", json={})
    assert Draft202012Validator(error).is_valid(refusal.json())
    assert httpx.get(f"{server[0]}/docs").status_code == 404


@pytest.mark.parametrize(
    ("path", "body", "status", "says"),
    [
        ("embeddings", {"model": "reelbank", "input": "a"}, 404, "that embeds; use 'reelbank-"),
        ("embeddings", {"model": "", "input": []}, 404, "There is no model"),
        ("embeddings", {"input": "a"}, 422, "model: Field required"),
        ("search", {}, 400, "query is empty"),
        (
            "search",
            {"query": "a", "videos": ["/etc/passwd"]},
            404,
            "no encoded video '/etc/passwd'",
        ),
        ("search", {"image": "data:image/png;base64,AAAA"}, 400, "cannot be read as a picture"),
        ("search", {"image": "https://example.org/a.png"}, 422, "a picture is written as data:"),
        ("search", {"query": "a", "top": 0}, 422, "greater than or equal to 1"),
        ("search", {"query": "a", "start": 5, "end": 2}, 400, "is not before"),
        ("search", {"query": "a" * 3000}, 400, "at most 2000 letters"),
    ],
)
def test_what_cannot_be_is_refused_in_openais_form(server, card, path, body, status, says) -> None:
    reply = httpx.post(f"{server[0]}/v1/{path}", json=body, timeout=60)
    error = reply.json()["error"]
    assert (reply.status_code, error["type"]) == (status, "invalid_request_error")
    assert says in error["message"] and error["message"].endswith(".")


def test_a_search_ends_with_its_client_and_with_its_time(server, card, monkeypatch) -> None:
    """Another search goes on meanwhile, and this one waits for it."""
    address, service = server
    body = json.dumps({"query": "red star"}).encode()
    with service.searching.engine._read_lock:
        client = connect(address)
        client.sendall(post_json("/v1/search", body))
        until(lambda: service.questions.admitted == 1)
        client.close()
        until(lambda: service.questions.admitted == 0)
        monkeypatch.setitem(vars(service.searching), "seconds", 0.2)
        late = httpx.post(f"{address}/v1/search", content=body, headers=JSON, timeout=20)
        assert late.status_code == 504 and "took longer than 0.2 s" in late.text
        until(lambda: service.questions.admitted == 0)
    monkeypatch.undo()
    assert httpx.post(f"{address}/v1/search", content=body, headers=JSON, timeout=60).is_success


def until(is_so: Callable[[], bool], seconds: float = 20.0) -> None:
    ends = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < ends
        time.sleep(0.01)


def test_inputs_that_cannot_be_embedded(client, card, embedder) -> None:
    name = embedder
    for given in ([1, 2], [""], [], ["x"] * 300, ["data:image/png;base64,AAAA"]):
        with pytest.raises((openai.UnprocessableEntityError, openai.BadRequestError)):
            client.embeddings.create(model=name, input="", extra_body={"input": given})
    with pytest.raises(openai.BadRequestError, match="dimensions"):
        client.embeddings.create(model=name, input="a", dimensions=3)
