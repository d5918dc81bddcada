"""A chat client, against a strict server over real sockets: what it sends again, how fast, and one
sentence for everything that goes wrong.
"""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from encoders.errors import UserError
from pipeline.endpoint.client import Completion
from pipeline.endpoint.endpoint import Endpoint
from pipeline.runtime.cancel import Cancelled
from tests.support.chat_server import MODEL, ChatServer, Reply, chat_server

PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4//8/AAX+Av4N70a4"
    "AAAAAElFTkSuQmCC"
)
CONTENT: list[dict[str, Any]] = [
    {"type": "text", "text": "What is it?"},
    {"type": "image_url", "image_url": {"url": PIXEL}},
]
Ask = Callable[..., Completion]


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with chat_server() as running:
        yield running
        assert running.mistakes == []


@pytest.fixture
def ask(server: ChatServer, monkeypatch) -> Ask:
    """The answer to a question with a picture. Keywords are settings of the backbone."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)

    def answer(emit=lambda text: None, cancelled=None, **settings: Any) -> Completion:
        given: dict[str, Any] = {"url": server.url, "model": MODEL, "retry_s": 0.01} | settings
        endpoint = Endpoint(**given)
        try:
            return endpoint.client.complete(endpoint.request(CONTENT), emit, cancelled)
        finally:
            endpoint.client.close()

    return answer


def sentence(ask: Ask, **settings: Any) -> str:
    with pytest.raises(UserError) as error:
        ask(**settings)
    text = str(error.value)
    assert "\n" not in text and text.count(". ") == 0
    return text


def test_an_answer_comes_in_pieces(ask: Ask):
    pieces: list[str] = []
    done = ask(pieces.append)
    assert "".join(pieces) == done.text == "A red ball." and len(pieces) > 2
    assert done.finish == "stop" and done.answer_tokens == 11 and done.prompt_tokens == 111


def test_a_busy_server_is_asked_again(ask: Ask, server: ChatServer):
    server.replies = [
        Reply(status=429, body={"error": {"message": "slow down"}}, headers={"Retry-After": "0.2"}),
        Reply(status=500, body=b"<html>oops</html>"),
        Reply("48", cut_after=0),
    ]
    ask()
    first, second, *_ = server.asked
    assert len(server.asked) == 4 and second.at - first.at >= 0.2


@pytest.mark.parametrize(
    ("reply", "settings", "said"),
    [
        (Reply(status=429, body={"error": {"message": "slow"}}), {"tries": 2},
         "after 2 tries, ADDRESS answers 429 (slow): too many requests; lower backbone.parallel="),
        (Reply(status=429, body={"error": {"message": "no money", "code": "insufficient_quota"}}),
         {}, "ADDRESS answers 429 (no money)"),
        (Reply(status=500, body={"error": {"message": "CUDA error"}}), {"tries": 2},
         "after 2 tries, ADDRESS answers 500 (CUDA error)"),
        (Reply(status=403, body={"error": {"message": "no"}}), {}, "may not use model seer"),
        (Reply(status=413, body=b""), {}, "the request is too large; lower backbone.max_images="),
        (Reply(status=302, body=b"", headers={"Location": "http://x/"}), {}, "elsewhere"),
        (Reply(status=400, body={"error": {"message": "At most 0 image(s) may be provided"}}), {},
         "it takes no pictures; choose a model that sees, or backbone.images=false"),
        (Reply(status=400, body={"error": {"message": "maximum context length is 512 tokens"}}), {},
         "longer than the model's context; lower backbone.max_images="),
        (Reply(silent_s=1.0), {"tries": 1, "timeout_s": 0.3},
         "has sent nothing for 0.3 s; raise backbone.timeout_s="),
        (Reply("4821 and more", cut_after=6), {}, "ADDRESS cut the answer off"),
        (Reply(raw="{nonsense"), {}, "something else than OpenAI's JSON ({nonsense)"),
        (Reply(raw='{"hello": 1}'), {}, "something else than OpenAI's JSON"),
        (Reply(raw='{"error": {"message": "out of memory"}}'), {},
         "broke off the answer (out of memory)"),
    ],
)  # fmt: skip
def test_one_sentence_for_what_goes_wrong(
    ask: Ask, server: ChatServer, reply: Reply, settings: dict[str, Any], said: str
):
    server.replies = [reply] * 9
    text = sentence(ask, **settings)
    assert said.replace("ADDRESS", server.url) in text and server.url in text


def test_a_model_that_is_not_there(ask: Ask, server: ChatServer):
    server.models = [{"id": "qwen3-vl"}, {"id": "smol"}]
    assert sentence(ask) == f"{server.url} has no model seer; it has qwen3-vl, smol"


def test_the_one_model_of_a_server_needs_no_name(ask: Ask, server: ChatServer):
    assert ask(model="").text == "A red ball." and server.asked[0].body["model"] == MODEL
    server.models = [{"id": "qwen3-vl"}, {"id": "smol"}]
    text = sentence(ask, model="")
    assert text == f"backbone.model= is missing; {server.url} has qwen3-vl, smol"
    server.models = []
    assert "does not say which models it has" in sentence(ask, model="")


def test_a_wrong_path_of_the_address(ask: Ask, server: ChatServer):
    text = sentence(ask, url=f"{server.address}/v2")
    assert "no /chat/completions" in text and "usually ends in /v1" in text


def test_nobody_listens(ask: Ask):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    text = sentence(ask, url=f"http://127.0.0.1:{port}/v1")
    assert f"http://127.0.0.1:{port}/v1 refuses the connection; is the server running" in text


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"url": ""}, "needs the address of a server"),
        ({"url": "localhost:8000"}, "needs the address of a server"),
        ({"url": "http://me:hush@127.0.0.1/v1"}, "holds a name, a password or a query"),
        ({"url": "http://127.0.0.1/v1?key=hush"}, "holds a name, a password or a query"),
        ({"image_size": 0}, "is no size"),
        ({"image_format": "gif"}, "use jpeg or png"),
        ({"answer_form": "xml"}, "use one of line, json, plain"),
        ({"parallel": 0}, "use 1 or more"),
        ({"timeout_s": float("nan")}, "does not fit"),
    ],
)
def test_settings_that_no_server_could_be_asked_with(
    ask: Ask, server: ChatServer, settings: dict[str, Any], said: str
):
    text = sentence(ask, **settings)
    assert said in text and "hush" not in text and server.asked == []


# ---- how it asks


def test_fields_that_a_server_does_not_take_are_left_out(ask: Ask, server: ChatServer):
    for name in ("stream_options", "temperature", "max_tokens"):
        said = {"error": {"message": f"Unsupported parameter: '{name}'"}}
        server.replies.append(Reply(status=400, body=said))
    assert ask().text == "A red ball."
    last = server.asked[-1].body
    assert not {"stream_options", "temperature", "max_tokens"} & last.keys()
    assert last["max_completion_tokens"] == 512


def test_further_fields_are_sent(ask: Ask, server: ChatServer):
    ask(extra={"seed": 7}, temperature=None)
    body = server.asked[0].body
    assert body["seed"] == 7 and "temperature" not in body


def test_so_many_at_a_time_and_no_faster(ask: Ask, server: ChatServer):
    server.answer = lambda asked: Reply(silent_s=0.1)
    endpoint = Endpoint(url=server.url, model=MODEL, parallel=3)
    with ThreadPoolExecutor(9) as pool:
        list(pool.map(lambda _: endpoint.client.complete(endpoint.request("a")), range(9)))
    endpoint.client.close()
    assert server.most_at_once == 3
    server.asked.clear()
    endpoint = Endpoint(url=server.url, model=MODEL, parallel=3, requests_per_minute=600)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: endpoint.client.complete(endpoint.request("a")), range(8)))
    endpoint.client.close()
    begins = sorted(asked.at for asked in server.asked)
    assert begins[-1] - begins[0] >= 0.5  # 0.7 s, of which the first one needs some to connect


def test_a_cancelled_question_ends_at_once(ask: Ask, server: ChatServer):
    server.answer = lambda asked: Reply(silent_s=5.0)
    cancelled = threading.Event()
    threading.Timer(0.2, cancelled.set).start()
    began = time.monotonic()
    with pytest.raises(Cancelled):
        ask(cancelled=cancelled)
    assert time.monotonic() - began < 2.0


def test_a_long_wish_to_be_left_alone_is_told(ask: Ask, server: ChatServer):
    server.replies = [Reply(status=503, body=b"", headers={"Retry-After": "3600"})]
    assert "answers 503, in 3600 s" in sentence(ask)


def test_a_proxy_is_for_other_machines(ask: Ask, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    assert ask().text == "A red ball."
