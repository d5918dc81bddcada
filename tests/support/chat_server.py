"""A strict OpenAI server for tests: it checks every request against the types of the openai
package, and answers as it is told, over real sockets.

A request that a real server would not take is answered with 400, and remembered in `mistakes`.
"""

import base64
import io
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from openai.types.chat import (
    ChatCompletionContentPartImageParam,
    ChatCompletionContentPartTextParam,
    ChatCompletionMessageParam,
    completion_create_params,
)
from openai.types.chat.chat_completion_chunk import (
    ChatCompletionChunk,
    Choice,
    ChoiceDelta,
    ChoiceLogprobs,
)
from openai.types.chat.chat_completion_token_logprob import (
    ChatCompletionTokenLogprob,
    TopLogprob,
)
from openai.types.completion_usage import CompletionUsage
from PIL import Image
from pydantic import TypeAdapter, ValidationError

MODEL = "seer"
_PARTS = {
    "text": ChatCompletionContentPartTextParam,
    "image_url": ChatCompletionContentPartImageParam,
}
_MESSAGE: TypeAdapter[Any] = TypeAdapter(ChatCompletionMessageParam)
_BODY = completion_create_params.CompletionCreateParamsStreaming


@dataclass
class Asked:
    """A request as the server got it."""

    body: dict[str, Any]
    headers: dict[str, str]
    texts: list[str]  # of the text parts
    pictures: list[Image.Image]
    at: float = field(default_factory=time.monotonic)


@dataclass
class Reply:
    """What the server does with a request."""

    text: str = "A red ball."
    status: int = 200
    body: Any = None  # of an error; bytes go out as they are
    headers: dict[str, str] = field(default_factory=dict)
    cut_after: int | None = None  # letters of the text after which the connection breaks
    silent_s: float = 0.0  # before the first byte
    piece_s: float = 0.0  # between two pieces
    finish: str = "stop"
    raw: str = ""  # a line of the stream in place of the text
    json: bool = False  # answers without a stream
    # log-probabilities of what could be the first token, where the request asks for them
    top: dict[str, float] = field(default_factory=dict)


@dataclass
class ChatServer:
    """A running server. `replies` are used up in order, then `answer` is asked."""

    address: str
    answer: Callable[[Asked], Reply] = lambda asked: Reply()
    replies: list[Reply] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    mistakes: list[str] = field(default_factory=list)
    models: list[dict[str, Any]] | None = None  # None: only MODEL
    key: str = ""  # that requests must carry
    most_at_once: int = 0
    _now: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        return f"{self.address}/v1"


def check(body: Any) -> tuple[list[str], list[Image.Image]]:
    """Texts and pictures of a request. ValueError if it is not of OpenAI's API."""
    unknown = set(body) - set(_BODY.__annotations__) - set(_base_keys())
    if unknown:
        raise ValueError(f"unknown fields {sorted(unknown)}")
    if not isinstance(body["model"], str) or body.get("stream") is not True:
        raise ValueError("model or stream")
    hints: dict[str, tuple[type, ...]] = {
        "max_tokens": (int,),
        "temperature": (int, float),
        "stream_options": (dict,),
        "seed": (int,),
        "logprobs": (bool,),
        "top_logprobs": (int,),
    }
    for name, kinds in hints.items():
        if name in body and not isinstance(body[name], kinds):
            raise ValueError(f"{name}={body[name]!r}")
    if body.get("top_logprobs", 0) > (20 if body.get("logprobs") else 0):
        raise ValueError("top_logprobs")
    texts: list[str] = []
    pictures: list[Image.Image] = []
    for message in body["messages"]:
        _MESSAGE.validate_python(message)
        content: Any = message["content"]
        rows: list[Any] = (
            [{"type": "text", "text": content}] if isinstance(content, str) else content
        )
        for part in rows:
            TypeAdapter(_PARTS[part["type"]]).validate_python(part)
            if set(part) != {"type", part["type"]}:
                raise ValueError(f"fields of a part: {sorted(part)}")
            if part["type"] == "text":
                texts.append(part["text"])
                continue
            head, _, data = part["image_url"]["url"].partition(";base64,")
            picture = Image.open(io.BytesIO(base64.b64decode(data, validate=True)))
            picture.load()
            if head != f"data:image/{str(picture.format).lower()}":
                raise ValueError(f"a {picture.format} is called {head}")
            pictures.append(picture)
    return texts, pictures


def _base_keys() -> Sequence[str]:
    return list(completion_create_params.CompletionCreateParamsBase.__annotations__)


@contextmanager
def chat_server(**settings: Any) -> Iterator[ChatServer]:
    """A strict server on a free port of this machine."""

    class Handler(_Handler):
        chat: ChatServer

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.daemon_threads = True
        chat = ChatServer(f"http://127.0.0.1:{http.server_address[1]}", **settings)
        Handler.chat = chat
        thread = threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield chat
        finally:
            http.shutdown()
            thread.join(10)


class _Handler(BaseHTTPRequestHandler):
    chat: ChatServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        rows = self.chat.models
        rows = [{"id": MODEL}] if rows is None else rows
        listed = [{"object": "model", "created": 0, "owned_by": "test"} | row for row in rows]
        if self.path == "/v1/models" and rows:
            self._send(200, {"object": "list", "data": listed})
        else:
            self._send(404, {"error": {"message": "no such path"}})

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        chat = self.chat
        if self.path != "/v1/chat/completions":
            return self._send(404, {"error": {"message": "no such path"}})
        if chat.key and self.headers.get("Authorization") != f"Bearer {chat.key}":
            said = f"Incorrect API key provided: {self.headers.get('Authorization')}"
            return self._send(401, {"error": {"message": said, "code": "invalid_api_key"}})
        body = json.loads(data)
        try:
            texts, pictures = check(body)
        except (ValueError, KeyError, TypeError, AttributeError, ValidationError) as error:
            chat.mistakes.append(repr(error))
            return self._send(400, {"error": {"message": f"not OpenAI's: {error!r}"}})
        asked = Asked(body, dict(self.headers.items()), texts, pictures)
        with chat._lock:
            chat.asked.append(asked)
            chat._now += 1
            chat.most_at_once = max(chat.most_at_once, chat._now)
            reply = chat.replies.pop(0) if chat.replies else None
        known = [row["id"] for row in chat.models or [{"id": MODEL}]]
        try:
            if body["model"] not in known:
                said = f"The model `{body['model']}` does not exist"
                return self._send(404, {"error": {"message": said, "code": "model_not_found"}})
            self._reply(reply or chat.answer(asked), asked)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the client has gone
        finally:
            with chat._lock:
                chat._now -= 1
        return None

    def _reply(self, reply: Reply, asked: Asked) -> None:
        time.sleep(reply.silent_s)
        if reply.status != 200:
            return self._send(reply.status, reply.body, reply.headers)
        if reply.json:
            message = {"role": "assistant", "content": reply.text}
            choice = {"index": 0, "message": message, "finish_reason": reply.finish}
            return self._send(200, {"id": "1", "choices": [choice], "usage": _usage(asked, reply)})
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        if reply.raw:
            self._line(reply.raw)
            return None
        text = reply.text if reply.cut_after is None else reply.text[: reply.cut_after]
        top = reply.top if asked.body.get("logprobs") else {}
        for at in range(0, len(text), 3):
            self._chunk(ChoiceDelta(content=text[at : at + 3]), top={} if at else top)
            time.sleep(reply.piece_s)
        if reply.cut_after is not None:
            return None
        self._chunk(ChoiceDelta(), reply.finish)
        if (asked.body.get("stream_options") or {}).get("include_usage"):
            usage = CompletionUsage.model_validate(_usage(asked, reply))
            self._line(_chunk([], usage).model_dump_json(exclude_none=True))
        self._line("[DONE]")
        return None

    def _chunk(
        self, delta: ChoiceDelta, finish: Any = None, top: dict[str, float] | None = None
    ) -> None:
        rows = [TopLogprob(token=token, logprob=log) for token, log in (top or {}).items()]
        first = [
            ChatCompletionTokenLogprob(token=row.token, logprob=row.logprob, top_logprobs=rows)
            for row in rows[:1]
        ]
        logs = ChoiceLogprobs(content=first) if rows else None
        choice = Choice(delta=delta, index=0, finish_reason=finish, logprobs=logs)
        chunk = _chunk([choice], None)
        self._line(chunk.model_dump_json(exclude_none=True))

    def _line(self, text: str) -> None:
        self.wfile.write(f"data: {text}\n\n".encode())
        self.wfile.flush()

    def _send(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _chunk(choices: list[Choice], usage: CompletionUsage | None) -> ChatCompletionChunk:
    return ChatCompletionChunk(
        id="1",
        choices=choices,
        created=0,
        model=MODEL,
        object="chat.completion.chunk",
        usage=usage,
    )


def _usage(asked: Asked, reply: Reply) -> dict[str, int]:
    """100 tokens a picture, one a letter."""
    prompt, answer = 100 * len(asked.pictures) + sum(map(len, asked.texts)), len(reply.text)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": answer,
        "total_tokens": prompt + answer,
    }
