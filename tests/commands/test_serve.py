"""`reelbank serve`, driven by OpenAI's own client and by raw requests.

Covers: answers with citations, the same video encoded once, and a status and one sentence in
OpenAI's format for every misuse. A real server, the embedded model, real films.
"""

import base64
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import openai
import pytest

from pipeline import cli
from pipeline.alerts.alert import AlertState
from pipeline.alerts.schema import Decision
from pipeline.answer.schema import local
from pipeline.runtime.stage_timer import StageTimer
from pipeline.server.access.key import RIGHTS, new_key
from pipeline.server.access.key_file import KeyFile
from pipeline.server.app import Service
from tests.support import stub_alerts
from tests.support.serving import film, serving
from tests.support.toys import toy_parts
from tests.support.videos import write_audio, write_video

QUESTION = "What is the code on the card?"


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    film(folder / "card.mp4", "code:4821@5")
    return folder


@pytest.fixture(scope="module")
def server(films, tmp_path_factory):
    with serving(
        tmp_path_factory.mktemp("served"),
        "running=1",
        "waiting=2",
        "request_mb=2",
        "upload_mb=3",
        "seconds=60",
    ) as both:
        yield both


@pytest.fixture(scope="module")
def client(server) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server[0]}/v1", api_key="none", max_retries=0, timeout=60)


@pytest.fixture(scope="module")
def card(client: openai.OpenAI, films: Path) -> str:
    """The id of the film, handed in."""
    return client.files.create(file=films / "card.mp4", purpose="user_data").id


def asking(part: dict, text: str = QUESTION) -> list:
    return [{"role": "user", "content": [part, {"type": "text", "text": text}]}]


def of_file(file_id: str) -> dict:
    return {"type": "file", "file": {"file_id": file_id}}


@contextmanager
def held(service: Service):
    """Answers stop before their first token until `go_on` is set; `reached` counts how many did."""
    go_on, reached = threading.Event(), threading.Semaphore(0)
    model = local(service.qa.answerer.reader, "a test").backbone.language_model
    decode = model.decode

    def slow(*args, **kwargs):
        reached.release()
        assert go_on.wait(30)
        yield from decode(*args, **kwargs)

    model.decode = slow  # type: ignore[method-assign]
    try:
        yield go_on, reached
    finally:
        go_on.set()
        del model.decode


def connected(address: str) -> socket.socket:
    host, port = address.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=20)


def post(client: socket.socket, body: bytes, length: int | None = None) -> None:
    """Send a chat request by hand."""
    size = len(body) if length is None else length
    client.sendall(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: "
        b"application/json\r\n" + f"Content-Length: {size}\r\n\r\n".encode() + body
    )


def answers(address: str) -> list[str]:
    """How many answers were given, as /metrics says it."""
    return [
        line
        for line in httpx.get(f"{address}/metrics").text.splitlines()
        if line.startswith("reelbank_answers_total")
    ]


def until(condition, seconds: float = 20.0) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.01)


def test_a_video_is_handed_in_asked_about_and_asked_again_without_encoding(
    server, client, card, films
):
    address, service = server
    first = client.chat.completions.create(model="reelbank", messages=asking(of_file(card)))
    message = first.choices[0].message
    assert message.content == "4821\n\nSeen at 00:05-00:07."
    assert message.citations == [{"file_id": card, "start": 5.0, "end": 7.0}] and message.shown
    assert (
        first.usage.prompt_tokens > 24
        and first.usage.total_tokens == first.usage.prompt_tokens + first.usage.completion_tokens
    )
    runs, frames = service.encode_queue.runs, service.encode_queue.frames
    assert (runs, frames) == (1, 12)
    copy = films / "copy.mp4"
    copy.write_bytes((films / "card.mp4").read_bytes())
    again = client.files.create(file=copy, purpose="user_data")
    assert again.id == card  # the same bytes, whatever their name
    second = client.chat.completions.create(model="reelbank", messages=asking(of_file(again.id)))
    assert second.choices[0].message.content == message.content
    assert (service.encode_queue.runs, service.encode_queue.frames) == (runs, frames)
    figures = httpx.get(f"{address}/metrics").text
    assert (
        "reelbank_frames_encoded_total 12.0" in figures
        and "reelbank_encodings_total 1.0" in figures
    )
    assert (
        'reelbank_requests_total{method="POST",route="/v1/chat/completions",status="200"} 2.0'
        in figures
    )


def test_files_are_listed_looked_at_played_and_known_as_processed(client, card, films):
    assert [file.id for file in client.files.list()] == [card]
    file = client.files.retrieve(card)
    assert (file.filename, file.status, file.bytes) == (
        "card.mp4",
        "processed",
        (films / "card.mp4").stat().st_size,
    )
    data = (films / "card.mp4").read_bytes()
    assert client.files.content(card).content == data
    part = httpx.get(f"{client.base_url}files/{card}/content", headers={"Range": "bytes=100-199"})
    assert (part.status_code, part.content, part.headers["content-type"]) == (
        206,
        data[100:200],
        "video/mp4",
    )
    assert part.headers["x-content-type-options"] == "nosniff"


def test_a_stream_gives_pieces_and_ends_with_moments_and_counts(client, card):
    stream = client.chat.completions.create(
        model="reelbank",
        messages=asking(of_file(card)),
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    texts = [
        chunk.choices[0].delta.content
        for chunk in chunks
        if chunk.choices and chunk.choices[0].delta.content
    ]
    assert "".join(texts) == "4821\n\nSeen at 00:05-00:07." and len(texts) > 2
    last = [chunk for chunk in chunks if chunk.choices][-1].choices[0]
    assert last.finish_reason == "stop" and last.delta.citations == [
        {"file_id": card, "start": 5.0, "end": 7.0}
    ]
    assert chunks[-1].usage.completion_tokens > 0


def test_what_comes_after_the_moment_of_the_question_is_not_seen(client, card):
    early = client.chat.completions.create(
        model="reelbank", messages=asking(of_file(card)), extra_body={"asked_at": 3}
    )
    message = early.choices[0].message
    assert "4821" not in message.content and message.citations == [] and not message.shown
    bare = client.chat.completions.create(
        model="reelbank", messages=asking(of_file(card)), extra_body={"cite_in_text": False}
    )
    assert bare.choices[0].message.content == "4821"


def test_a_video_in_the_request_is_the_same_video(server, client, card, films):
    _, service = server
    frames = service.encode_queue.frames
    url = "data:video/mp4;base64," + base64.b64encode((films / "card.mp4").read_bytes()).decode()
    for part in (
        {"type": "video_url", "video_url": {"url": url}},
        {"type": "file", "file": {"file_data": url}},
    ):
        done = client.chat.completions.create(model="reelbank", messages=asking(part))
        assert done.choices[0].message.citations[0]["file_id"] == card
    assert service.encode_queue.frames == frames


def test_what_is_not_heeded_is_said(client, card):
    messages = [{"role": "system", "content": "Be brief."}, *asking(of_file(card))]
    done = client.chat.completions.create(
        model="reelbank", messages=messages, max_tokens=1, temperature=0.7
    )
    warning = done.choices[0].message.warning
    assert warning == "System messages are not read."  # by the embedded model
    plain = client.chat.completions.create(model="reelbank", messages=asking(of_file(card)))
    assert not hasattr(plain.choices[0].message, "warning")


def test_models_and_health(server, client):
    assert [model.id for model in client.models.list()] == ["reelbank"]
    assert client.models.retrieve("reelbank").owned_by == "reelbank"
    health = httpx.get(f"{server[0]}/health")
    assert health.status_code == 200 and health.json()["status"] == "ok"
    with pytest.raises(openai.NotFoundError, match="There is no model 'gpt-9'"):
        client.models.retrieve("gpt-9")


def refused(response: httpx.Response, status: int, *words: str) -> None:
    """The status, one sentence, OpenAI's form."""
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert "\n" not in error["message"] and error["message"].endswith("."), error
    for word in words:
        assert word in error["message"], error


TEXT = {"type": "text", "text": QUESTION}
GONE = of_file("file-" + "0" * 32)


def chat(*parts, **more) -> dict:
    return {"model": "reelbank", "messages": [{"role": "user", "content": list(parts)}]} | more


BAD = {
    "no object": ([], 422, "body"),
    "no messages": ({"model": "reelbank"}, 422, "messages"),
    "empty messages": ({"model": "reelbank", "messages": []}, 422, "messages"),
    "wrong role": (
        {"model": "reelbank", "messages": [{"role": "king", "content": "x"}]},
        422,
        "role",
    ),
    "wrong part": (chat({"type": "hologram"}), 422, "messages.0.content"),
    "text for a number": (chat(GONE, TEXT, asked_at="soon"), 422, "asked_at"),
    "negative moment": (chat(GONE, TEXT, asked_at=-1), 422, "asked_at"),
    "another model": (chat(GONE, TEXT) | {"model": "gpt-9"}, 404, "no model", "'reelbank'"),
    "no video": (chat(TEXT), 400, "No message holds a video"),
    "no question": (chat(GONE), 400, "no question"),
    "empty question": (chat(GONE, {"type": "text", "text": " \n"}), 400, "no question"),
    "half a character": (
        chat(GONE, {"type": "text", "text": "\ud800"}),
        400,
        "halves of characters",
    ),
    "absurdly long question": (
        chat(GONE, {"type": "text", "text": "why " * 5000}),
        400,
        "19999 letters; at most 2000",
    ),
    "several answers": (chat(GONE, TEXT, n=99), 422, "n: Input should be less than or equal to 8"),
    "tools": (chat(GONE, TEXT, tools=[{}]), 400, "tools"),
    "unknown file": (chat(GONE, TEXT), 404, "There is no file file-0000"),
    "path for an id": (chat(of_file("../../etc/passwd"), TEXT), 404, "There is no file"),
    "path behind an id": (
        chat(of_file("file-" + "0" * 32 + "/../x"), TEXT),
        404,
        "There is no file",
    ),
    "no file at all": (chat({"type": "file", "file": {}}, TEXT), 422, "file_id"),
    "damaged base64": (
        chat({"type": "video_url", "video_url": {"url": "data:video/mp4;base64,?"}}, TEXT),
        400,
        "base64",
    ),
    "no base64": (
        chat({"type": "video_url", "video_url": {"url": "data:video/mp4,x"}}, TEXT),
        400,
        "base64",
    ),
    "no video in base64": (
        chat({"type": "video_url", "video_url": {"url": "data:;base64,eHh4"}}, TEXT),
        400,
        "not a video",
    ),
    "file URL": (
        chat({"type": "video_url", "video_url": {"url": "file:///etc/passwd"}}, TEXT),
        400,
        "http",
    ),
    "foreign host": (
        chat({"type": "video_url", "video_url": {"url": "http://example.org/a.mp4"}}, TEXT),
        400,
        "not fetched",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_request_is_told(server, name):
    body, status, *words = BAD[name]
    sent = httpx.post(
        f"{server[0]}/v1/chat/completions",
        content=json.dumps(body),
        headers={"Content-Type": "application/json"},
    )
    refused(sent, status, *words)
    until(lambda: server[1].questions.admitted == 0)


@pytest.mark.parametrize(
    "data", [b"{", b"", b"\xff\xfe", b"[" * 200_000], ids=["cut", "empty", "bytes", "deep"]
)
def test_malformed_json_is_told(server, data):
    sent = httpx.post(
        f"{server[0]}/v1/chat/completions",
        content=data,
        headers={"Content-Type": "application/json"},
    )
    refused(sent, 400, "not valid JSON")


@pytest.mark.parametrize(
    "path",
    [
        "/v1/files/..%2f..%2fetc%2fpasswd",
        "/v1/files/%2e%2e/content",
        "/v1/files/file-x/content",
        "/v1/nix",
        "/etc/passwd",
    ],
)
def test_no_path_leads_out(server, path):
    for method in ("GET", "DELETE"):
        answered = httpx.request(method, server[0] + path)
        assert (
            answered.status_code in (404, 405)
            and "error" in answered.json()
            and "root:" not in answered.text
        )


def uploads(films: Path) -> dict[str, tuple[bytes, str]]:
    write_audio(films / "sound.m4a")
    whole = (films / "card.mp4").read_bytes()
    return {
        "text": (b"this is no video\n" * 50, "not a video"),
        "empty": (b"", "empty"),
        "half": (whole[: len(whole) // 2], "damaged or incomplete"),
        "sound": ((films / "sound.m4a").read_bytes(), "only sound"),
        "playlist": (
            f"#EXTM3U\n#EXTINF:5,\n{films / 'card.mp4'}\n#EXT-X-ENDLIST\n".encode(),
            "not a video",
        ),
        "list of files": (
            f"ffconcat version 1.0\nfile {films / 'card.mp4'}\n".encode(),
            "not a video",
        ),
        "large": (b"\0" * 3_000_001, "larger than 3 MB"),
        "huge": (b"\0" * 6_000_000, "larger than"),
    }


@pytest.mark.parametrize(
    "name", ["text", "empty", "half", "sound", "playlist", "list of files", "large", "huge"]
)
def test_an_upload_that_is_no_video_is_told_and_not_kept(server, films, name):
    address, service = server
    data, words = uploads(films)[name]
    before = (sorted(p.name for p in service.files._folder.iterdir()), service.files.nbytes)
    answered = httpx.post(
        f"{address}/v1/files",
        files={"file": ("../../x/my film.mp4", data)},
        data={"purpose": "user_data"},
    )
    refused(answered, 413 if name in ("large", "huge") else 400, words)
    assert str(service.files._folder) not in answered.text
    assert (sorted(p.name for p in service.files._folder.iterdir()), service.files.nbytes) == before


def test_an_upload_without_a_file_or_form_is_told(server):
    address = f"{server[0]}/v1/files"
    refused(
        httpx.post(address, data={"purpose": "x"}, files={"other": b"x"}), 400, "no part named file"
    )
    refused(
        httpx.post(address, content=b"x", headers={"Content-Type": "text/plain"}), 415, "multipart"
    )
    refused(
        httpx.post(
            address, content=b"x", headers={"Content-Type": "multipart/form-data; boundary=b"}
        ),
        400,
        "",
    )
    refused(
        httpx.post(address, content=b"x", headers={"Content-Type": "multipart/form-data"}), 400, ""
    )


def test_a_request_that_is_too_large_is_told_with_and_without_a_length(server):
    address = f"{server[0]}/v1/chat/completions"
    large = b" " * 2_000_001
    refused(
        httpx.post(address, content=large, headers={"Content-Type": "application/json"}),
        413,
        "larger than 2 MB",
    )
    pieces = (large[i : i + 100_000] for i in range(0, len(large), 100_000))
    refused(
        httpx.post(address, content=pieces, headers={"Content-Type": "application/json"}),
        413,
        "larger than 2 MB",
    )
    until(lambda: server[1].questions.admitted == 0)


def test_who_reads_only_when_all_is_sent_is_told_too(server):
    """Closing a connection with unread bytes resets it, and the error never arrives."""
    with connected(server[0]) as client:
        post(client, b" " * 20_000_000)
        time.sleep(0.2)
        told = b""
        while piece := client.recv(1 << 16):
            told += piece
    assert b" 413 " in told and b"larger than 2 MB" in told
    until(lambda: server[1].questions.admitted == 0)


def test_pages_of_other_sites_and_other_names_are_refused(server, card):
    address = f"{server[0]}/v1/chat/completions"
    body = chat(of_file(card), TEXT)
    refused(
        httpx.post(address, json=body, headers={"Origin": "https://evil.example"}),
        403,
        "other sites",
    )
    refused(httpx.get(f"{server[0]}/v1/files", headers={"Host": "evil.example"}), 421, "name")
    refused(
        httpx.post(address, content=json.dumps(body), headers={"Content-Type": "text/plain"}),
        415,
        "application/json",
    )


def test_more_questions_than_places_are_turned_away_and_the_others_answered(server, client, card):
    """One runs, two wait, the fourth is told to come back; every place is free again afterwards."""
    _, service = server
    with held(service) as (go_on, reached), ThreadPoolExecutor(3) as pool:
        asked = [
            pool.submit(
                lambda: client.chat.completions.create(
                    model="reelbank", messages=asking(of_file(card))
                )
            )
            for _ in range(3)
        ]
        until(lambda: service.questions.admitted == 3)
        assert reached.acquire(timeout=20)
        with pytest.raises(openai.RateLimitError, match="try again later") as told:
            client.chat.completions.create(
                model="reelbank", messages=asking(of_file(card)), stream=True
            )
        assert 1 <= int(told.value.response.headers["retry-after"]) <= 60
        go_on.set()
        assert {one.result().choices[0].message.content for one in asked} == {
            "4821\n\nSeen at 00:05-00:07."
        }
    until(lambda: service.questions.admitted == 0)


@pytest.mark.parametrize("stream", [False, True])
def test_who_goes_away_ends_the_answer_and_frees_the_place(server, card, stream):
    address, service = server
    given = answers(address)
    with held(service) as (go_on, reached), connected(address) as client:
        post(client, json.dumps(chat(of_file(card), TEXT, stream=stream)).encode())
        assert reached.acquire(timeout=20)
        client.close()
        time.sleep(0.2)  # for the server to notice
        go_on.set()
        until(lambda: service.questions.admitted == 0)
    assert answers(address) == given


def test_an_answer_that_takes_too_long_is_504(server, card, monkeypatch):
    address, service = server
    monkeypatch.setattr(service.answering, "_seconds", 0.2)
    with held(service) as (go_on, _):
        refused(
            httpx.post(f"{address}/v1/chat/completions", json=chat(of_file(card), TEXT)),
            504,
            "longer than 0.2 s",
        )
        streamed = httpx.post(
            f"{address}/v1/chat/completions", json=chat(of_file(card), TEXT, stream=True)
        )
        # its status was sent before
        assert streamed.status_code == 200 and '"error"' in streamed.text
        go_on.set()
        until(lambda: service.questions.admitted == 0)


def test_a_body_that_does_not_come_is_408(films, tmp_path):
    with serving(tmp_path, "body_seconds=0.3", *toy_parts()) as (address, service):
        with connected(address) as slow:
            post(slow, b"{", length=100)
            assert slow.recv(100).startswith(b"HTTP/1.1 408")
        until(lambda: service.questions.admitted == 0)


def test_a_model_that_writes_no_json_says_so(client, card):
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}
    with pytest.raises(openai.BadRequestError, match="and writes no JSON") as refused:
        client.chat.completions.create(
            model="reelbank", messages=asking(of_file(card)), response_format=form
        )
    assert refused.value.param == "response_format"


def test_a_key_is_wanted_where_one_is_set(tmp_path, monkeypatch):
    monkeypatch.setenv("REELBANK_API_KEY", "sesame")
    with serving(tmp_path, *toy_parts()) as (address, _):
        with pytest.raises(openai.AuthenticationError, match="missing or wrong"):
            openai.OpenAI(base_url=f"{address}/v1", api_key="wrong", max_retries=0).models.list()
        assert (
            openai.OpenAI(base_url=f"{address}/v1", api_key="sesame", max_retries=0)
            .models.list()
            .data
        )
        assert httpx.get(f"{address}/metrics").status_code == 401
        assert httpx.get(f"{address}/health").status_code == 200


def test_named_keys_have_rights_see_their_banks_and_leave_a_trail(films, tmp_path):
    """They are revoked while the server runs."""
    file = KeyFile(tmp_path / "bank-keys.json")
    tokens = {}
    for name, rights, banks in (
        ("reader", ("ask",), ()),
        ("owner", RIGHTS, (str(tmp_path / "bank"),)),
        ("foreign", ("ask",), (str(tmp_path / "elsewhere"),)),
    ):
        key, tokens[name] = new_key(name, rights, banks, 0, 0.0)
        file.add(key)
    headers = {name: {"Authorization": f"Bearer {token}"} for name, token in tokens.items()}
    with serving(tmp_path, "whole_bank=true", *toy_parts()) as (address, service):
        upload = {"file": ("card.mp4", (films / "card.mp4").read_bytes())}
        more = {"data": {"purpose": "user_data"}, "files": upload}
        url = f"{address}/v1/files"
        refused(
            httpx.post(url, headers=headers["reader"], **more), 403, "The key reader may not add"
        )
        card = httpx.post(url, headers=headers["owner"], **more).json()["id"]
        until(lambda: service.encode_queue.runs == 1 and not len(service.encode_queue))
        chats = f"{address}/v1/chat/completions"
        own = chat(of_file(card), TEXT)
        assert httpx.post(chats, json=own, headers=headers["reader"], timeout=60).is_success
        inline = {"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA"}}
        for part in (inline, {"type": "video_url", "video_url": {"url": "https://h/a.mp4"}}):
            response = httpx.post(chats, json=chat(part, TEXT), headers=headers["reader"])
            refused(response, 403, "may not add")
        refused(httpx.get(url, headers=headers["foreign"]), 403, "may not see this bank")
        whole = {"model": "reelbank-bank", "messages": [{"role": "user", "content": QUESTION}]}
        refused(httpx.post(chats, json=whole, headers=headers["foreign"]), 403, "this bank")
        refused(httpx.get(f"{address}/metrics", headers=headers["reader"]), 403, "manage")
        pieces = answer_until_revoked(chats, own, file, "reader", headers["reader"])
        assert (
            1 < len(pieces) < 40
            and pieces[-1] == "The API key was revoked before the answer was complete."
        )
        until(lambda: not service.questions.admitted)
        asked = httpx.get(f"{url}?secret=1", headers=headers["reader"])
        refused(asked, 401, "missing or wrong")
        assert httpx.get(f"{address}/metrics", headers=headers["owner"]).is_success
        events = notices_until_revoked(service, address, file, "owner", headers["owner"])
        assert events == ["its own"]
    text = (tmp_path / "bank-audit.log").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert [(one["key"], one["method"], one["status"]) for one in lines[:3]] == [
        ("reader", "POST", 403),
        ("owner", "POST", 200),
        ("reader", "POST", 200),
    ]
    assert lines[-3]["key"] is None and lines[-3]["status"] == 401
    assert "secret=1" not in text and QUESTION not in text
    assert not any(token.split("_", 2)[2] in text for token in tokens.values())


def answer_until_revoked(
    url: str, body: dict, file: KeyFile, name: str, headers: dict[str, str]
) -> list[str]:
    """The pieces of a long answer, and the error at its end. The key is revoked with the first."""
    body = body | {"stream": True, "max_tokens": 4096, "n": 8}
    pieces = []
    with httpx.stream("POST", url, json=body, headers=headers, timeout=60) as response:
        for line in response.iter_lines():
            event = json.loads(line[6:]) if line.startswith("data: {") else {}
            if "error" in event:
                assert event["error"]["code"] == "invalid_api_key"
                pieces.append(event["error"]["message"])
            elif text := event and event["choices"][0]["delta"].get("content"):
                if not pieces:
                    file.revoke(name)
                pieces.append(text)
    return pieces


def notices_until_revoked(
    service: Service, address: str, file: KeyFile, name: str, headers: dict[str, str]
) -> list[str]:
    """The names of the notices that a key may see. It is revoked with the first one."""
    assert service.streams is not None
    store = service.streams.alerts.store
    for bank, says in (("", "older"), ("/elsewhere", "foreign"), (service.streams.bank, "its own")):
        decision = Decision(3.0, "change", 0.9, True, "told")
        notice = replace(stub_alerts.notice(says), bank=bank)
        store.record(store.add("cam", "it"), decision, None, AlertState(), notice, ())
    names = []
    url, headers = f"{address}/v1/notices", headers | {"Last-Event-ID": "0"}
    with httpx.stream("GET", url, headers=headers, timeout=20) as response:
        for line in response.iter_lines():  # it ends
            if line.startswith("data: "):
                names.append(json.loads(line.removeprefix("data: "))["id"])
                file.revoke(name)
    return names


def test_what_was_handed_in_outlives_the_server_and_a_deleted_video_is_forgotten(films, tmp_path):
    with serving(tmp_path, *toy_parts()) as (address, service):
        client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
        kept = client.files.create(file=films / "card.mp4", purpose="user_data").id
        until(lambda: service.encode_queue.runs == 1 and not len(service.encode_queue))
    with serving(tmp_path, *toy_parts()) as (address, service):
        client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
        assert client.files.retrieve(kept).status == "processed"
        client.chat.completions.create(model="reelbank", messages=asking(of_file(kept)))
        assert service.encode_queue.runs == 0
        assert client.files.delete(kept).deleted
        with pytest.raises(openai.NotFoundError, match="There is no file"):
            client.files.retrieve(kept)
        assert (
            service.qa.bank.catalog.videos() == [] and list(service.files._folder.iterdir()) == []
        )


def test_a_deleted_video_stops_being_encoded(films, tmp_path):
    write_video(films / "long.mp4", 90, 5)
    with serving(tmp_path, *toy_parts()) as (address, service):
        client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
        file = client.files.create(file=films / "long.mp4", purpose="user_data").id
        client.files.delete(file)
        until(lambda: not len(service.encode_queue))
        assert service.qa.bank.catalog.videos() == []


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["running=0"], "running=0"),
        (["port=70000"], "port=70000"),
        (["host=no.such.host.invalid"], "host=no.such.host.invalid"),
        (["hosts=[http://x/]"], "hosts="),
        (["seconds=nan"], "seconds=nan"),
        (["port=abc"], "port"),
    ],
)
def test_bad_settings_are_told_and_nothing_is_made(capfd, tmp_path, monkeypatch, overrides, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as done:
        cli.main(["serve", *overrides])
    out, err = capfd.readouterr()
    assert (done.value.code, out) == (2, "") and words in err and err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_port_that_is_taken_is_told(capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(SystemExit):
        cli.main(["serve", f"port={taken.getsockname()[1]}"])
    assert "cannot be listened at" in capfd.readouterr()[1]


def measure(questions: int = 200) -> None:
    """Seconds to the first token and to the answer with 1, 4, and 16 askers.

    Run it with python -m tests.commands.test_serve.
    """
    import tempfile

    folder = Path(tempfile.mkdtemp())
    path = film(folder / "card.mp4", "code:4821@31", seconds=60.0)
    with serving(folder, "waiting=64") as (address, _):
        client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0, timeout=120)
        file = client.files.create(file=path, purpose="user_data").id

        def ask(_: int) -> tuple[float, float]:
            clock, first = StageTimer(), None
            for chunk in client.chat.completions.create(
                model="reelbank", messages=asking(of_file(file)), stream=True
            ):
                if first is None and chunk.choices and chunk.choices[0].delta.content:
                    first = clock.total()
            assert first is not None
            return first, clock.total()

        ask(0)
        for askers in (1, 4, 16):
            clock = StageTimer()
            with ThreadPoolExecutor(askers) as pool:
                rows = sorted(pool.map(ask, range(questions)))
            firsts, wholes = [first for first, _ in rows], sorted(whole for _, whole in rows)
            middle, late = questions // 2, questions * 95 // 100
            print(
                f"{askers} askers, n={questions}: first token p50 {firsts[middle]:.3f} s, p95 "
                f"{firsts[late]:.3f} s; answer p50 "
                f"{wholes[middle]:.3f} s, p95 {wholes[late]:.3f} s; "
                f"{questions / clock.total():.1f} answers/s"
            )


if __name__ == "__main__":
    measure()
