"""`reelbank serve` about the whole bank, driven by OpenAI's own client."""

import re
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

import reelbank
from tests.support.serving import film, serving

STAR, CODE = "What color is the star?", "What is the code on the card?"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory):
    with serving(tmp_path_factory.mktemp("served"), "seconds=60", "whole_bank=true") as (
        address,
        _,
    ):
        yield openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0, timeout=60)


def ask(client: openai.OpenAI, text: str, **more: Any):
    messages: list = [{"role": "user", "content": text}]
    return client.chat.completions.create(model="reelbank-bank", messages=messages, **more)


@pytest.mark.slow
def test_the_whole_bank_answers_and_names_the_file(client, tmp_path: Path) -> None:
    with pytest.raises(openai.NotFoundError, match="holds no encoded video"):
        ask(client, CODE)
    ids = {}
    for number, (name, card) in enumerate(
        {"a.mp4": "code:4821@4", "b.mp4": "shape:red star@3"}.items()
    ):
        path = film(tmp_path / name, card, seconds=8, seed=number)
        ids[name] = client.files.create(file=path, purpose="user_data").id
        part = {"type": "file", "file": {"file_id": ids[name]}}
        content = [part, {"type": "text", "text": CODE}]
        one = client.chat.completions.create(
            model="reelbank", messages=[{"role": "user", "content": content}]
        )
        assert "filename" not in str(one)
    for question, text, name in ((STAR, "red", "b.mp4"), (CODE, "4821", "a.mp4")):
        message = ask(client, question).choices[0].message
        assert message.content.startswith(f"{text}\n\nSeen in {name} at 00:0")
        first = message.citations[0]
        assert (first["filename"], first["file_id"]) == (name, ids[name]) and first["video_id"]
        assert first["start"] < first["end"]
    chunks = list(ask(client, CODE, stream=True))
    told = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert told.startswith("4821\n\nSeen in a.mp4 at ")
    assert chunks[-1].choices[0].delta.citations[0]["file_id"] == ids["a.mp4"]
    plain = ask(client, CODE, extra_body={"cite_in_text": False, "asked_at": 2}).choices[0].message
    assert plain.content == "not in the video" and plain.citations == []


def test_mistakes_are_one_sentence(client) -> None:
    part = {"type": "file", "file": {"file_id": "file-0"}}
    with pytest.raises(openai.BadRequestError, match="answers from the whole bank; leave"):
        client.chat.completions.create(
            model="reelbank-bank",
            messages=[{"role": "user", "content": [part, {"type": "text", "text": CODE}]}],
        )
    with pytest.raises(openai.BadRequestError, match="or ask the whole bank with model="):
        client.chat.completions.create(
            model="reelbank", messages=[{"role": "user", "content": CODE}]
        )
    assert client.models.retrieve("reelbank-bank").id == "reelbank-bank"
    assert [model.id for model in client.models.list()] == ["reelbank", "reelbank-bank"]


def test_a_video_that_no_client_uploaded_has_a_name(tmp_path: Path) -> None:
    with reelbank.open(tmp_path / "bank") as bank:
        bank.add(film(tmp_path / "own.mp4", "code:4821@4", seconds=8))
    with serving(tmp_path, "seconds=60", "whole_bank=true") as (address, _):
        client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
        (citation, *_) = ask(client, CODE).choices[0].message.citations
        the_page_shows(address, tmp_path / "own.mp4", citation["video_id"])
    assert citation["filename"] == "own.mp4" and "file_id" not in citation


def the_page_shows(address: str, path: Path, video_id: str) -> None:
    """A film of the bank, by the routes of the page; and it is asked about alone."""
    with httpx.Client(base_url=address, timeout=60) as http:
        page = http.get("/")
        assert page.headers["content-security-policy"].startswith("default-src 'self'")
        # nothing from elsewhere
        assert not re.search(r"""(?:src|href|action)=["'](?:\w+:)?//""", page.text)
        assert http.get(f"/film/{video_id}").text == page.text
        assert http.get("/page/common.js").headers["content-type"].startswith("text/javascript")
        assert http.get("/page/routes.py").status_code == 404
        (row,) = http.get("/v1/videos").json()["data"]
        assert (row["id"], row["title"], row["kind"]) == (video_id, "own.mp4", "film")
        assert str(path.parent) not in str(row)
        url = f"/v1/videos/{video_id}"
        assert http.get(url).json()["segments"] == [[0.0, 8.0]]
        assert http.get(f"{url}/picture?at=5").content.startswith(b"\xff\xd8")
        assert http.get(f"{url}/picture?at=x").status_code in (400, 422)
        some = http.get(f"{url}/content", headers={"Range": "bytes=4-7"})
        assert (some.status_code, some.content) == (206, b"ftyp")
        assert http.get("/v1/videos/none/content").status_code == 404
        part = {"type": "video_url", "video_url": {"url": f"video:{video_id}"}}
        content = [part, {"type": "text", "text": CODE}]
        body = {"model": "reelbank", "messages": [{"role": "user", "content": content}]}
        answer = http.post("/v1/chat/completions", json=body).json()["choices"][0]["message"]
        assert answer["content"].startswith("4821")
        part["video_url"] = {"url": "video:none"}
        assert http.post("/v1/chat/completions", json=body).status_code == 404
        path.write_bytes(b"another film")  # of which nothing is shown
        assert http.get(f"{url}/content").status_code == 404


def test_a_client_cannot_ask_about_the_bank_unless_the_server_lets_it(tmp_path: Path) -> None:
    with serving(tmp_path, "seconds=60") as (address, _):
        client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
        assert [model.id for model in client.models.list()] == ["reelbank"]
        with pytest.raises(openai.NotFoundError, match="no model 'reelbank-bank'; use 'reelbank'"):
            client.models.retrieve("reelbank-bank")
        with pytest.raises(openai.BadRequestError, match="video"):
            ask(client, CODE)
