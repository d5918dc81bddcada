"""Chat requests to an OpenAI-compatible server: streams, retries, a rate limit, and the models that
it has.

Knows HTTP and OpenAI's JSON; no film and no prompt. The key comes from the environment with each
request, and goes into its header alone.
"""

import json
import os
import queue
import random
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from encoders.errors import UserError
from pipeline.endpoint.errors import EndpointError, Refusals, RefusedFieldError
from pipeline.runtime.cancel import Emit, raise_if_cancelled
from pipeline.runtime.fair_queue import FairQueue

if TYPE_CHECKING:
    import httpx

_POLL_S = 0.05  # how often a waiting request checks whether it was cancelled
_LONGEST_WAIT_S = 120.0  # between two tries; a server that wants more is told to the user
_CONNECT_S = 10.0
_MODELS_S = 10.0  # for the list of models, which some servers do not have
_MOST_LETTERS = 1 << 20  # of an answer


@dataclass(frozen=True, slots=True)
class Completion:
    """A complete answer of a server."""

    text: str
    finish: str  # stop, length, ...; "" if the server does not say
    prompt_tokens: int
    answer_tokens: int
    # what could have been the first token, with log-probabilities; (): the server does not say
    first_tokens: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Patience:
    """How a client treats a server."""

    timeout_s: float  # without a byte
    tries: int
    retry_s: float  # before the second try; twice as long before each further one
    parallel: int  # requests at a time
    requests_per_minute: float  # 0: no limit


class ChatClient:
    """One server. Threads: many may ask."""

    def __init__(self, url: str, model: str, key_env: str, patience: Patience) -> None:
        """url: with its version, such as http://localhost:8000/v1. model: "" = the one that the
        server has. key_env: name of the environment
        variable with the key; it may be unset. UserError on a url that is none, or that holds a
        password.
        """
        self.address, self._model, self._key_env = check_address(url), model, key_env
        self._model_lock = threading.Lock()
        self._patience = patience
        self._turns = FairQueue(patience.parallel)
        self._lock = threading.Lock()
        self._next_at = 0.0  # monotonic time before which no request begins
        self._was_reached = False
        self._without: set[str] = set()  # fields that the server does not take
        self._http: httpx.Client | None = None

    def complete(
        self,
        body: Mapping[str, Any],
        emit: Emit = lambda text: None,
        cancelled: threading.Event | None = None,
    ) -> Completion:
        """The answer to a chat request. `emit` gets its text in pieces as they arrive.

        body: without model and stream. EndpointError; Cancelled once `cancelled` is set.
        """
        with self._turns.turn(cancelled):
            for number in range(1, self._patience.tries + 1):
                sent = False

                def forward(text: str) -> None:
                    nonlocal sent
                    sent = True
                    emit(text)

                self._wait_for_rate(cancelled)
                try:
                    return self._try(self._body(body), forward, cancelled)
                except RefusedFieldError as error:
                    if error.field in self._without:
                        raise
                    self._without.add(error.field)
                except EndpointError as error:
                    is_last = number == self._patience.tries
                    if sent or is_last or not error.passes:
                        raise self._after(number, error) from None
                    self._back_off(number, error, cancelled)
        raise EndpointError(f"{self.address} refuses every form of the request")

    def models(self) -> list[dict[str, Any]]:
        """What the server says of its models; [] if it does not say."""
        import httpx

        try:
            response = self._client().get(
                f"{self.address}/models", headers=self._headers(), timeout=_MODELS_S
            )
            rows = response.json()["data"] if response.status_code == 200 else []
        except (httpx.HTTPError, ValueError, KeyError, TypeError):
            return []
        return [row for row in rows if isinstance(row, dict) and isinstance(row.get("id"), str)]

    @property
    def model(self) -> str:
        """The model that is asked; without a name the server's one model. EndpointError if there
        are several, or none.
        """
        with self._model_lock:
            if not self._model:
                names = sorted(row["id"] for row in self.models())
                if len(names) != 1:
                    raise self.refusals.which_model(names)
                self._model = names[0]
            return self._model

    def close(self) -> None:
        """Close the connections."""
        if self._http is not None:
            self._http.close()

    # ---- inside

    def _try(
        self, body: dict[str, Any], emit: Emit, cancelled: threading.Event | None
    ) -> Completion:
        """One request. EndpointError."""
        text, finish, is_done, usage = "", "", False, dict[str, Any]()
        first: tuple[tuple[str, float], ...] = ()
        for event in self._events(body, cancelled):
            if event is None:
                is_done = True
                break
            if event.get("error"):
                raise self.refusals.of_event(event["error"])
            usage = event.get("usage") or usage
            for choice in (event.get("choices") or ())[:1]:
                piece = _content(choice)
                finish = choice.get("finish_reason") or finish
                first = first or _first_tokens(choice)
                if piece:
                    text += piece
                    emit(piece)
            if len(text) > _MOST_LETTERS:
                raise EndpointError(f"{self.address} does not stop writing")
        if not is_done and not finish:
            raise self.refusals.cut_stream()
        return Completion(text, finish, _count(usage, "prompt"), _count(usage, "completion"), first)

    def _events(
        self, body: dict[str, Any], cancelled: threading.Event | None
    ) -> Iterator[dict[str, Any] | None]:
        """The objects of a stream; None for its proper end.

        The request runs in a thread of its own, so that a cancelled question ends at once also
        while a server is silent.
        """
        events: queue.SimpleQueue[dict[str, Any] | BaseException | None] = queue.SimpleQueue()
        stop = threading.Event()
        threading.Thread(
            target=self._pump, args=(body, events, stop), name="endpoint", daemon=True
        ).start()
        try:
            while True:
                try:
                    event = events.get(timeout=_POLL_S)
                except queue.Empty:
                    raise_if_cancelled(cancelled)
                    continue
                if isinstance(event, _End):
                    return
                if isinstance(event, BaseException):
                    raise event
                raise_if_cancelled(cancelled)
                yield event
        finally:
            stop.set()

    def _pump(
        self, body: dict[str, Any], events: "queue.SimpleQueue[Any]", stop: threading.Event
    ) -> None:
        import httpx

        try:
            with self._client().stream(
                "POST", f"{self.address}/chat/completions", json=body, headers=self._headers()
            ) as response:
                for event in self._read(response, body):
                    if stop.is_set():
                        return
                    events.put(event)
            events.put(_End())
        except httpx.HTTPError as error:
            events.put(self._of_transport(error))
        except BaseException as error:  # raised in the thread that asked
            events.put(error)

    def _read(
        self, response: "httpx.Response", body: Mapping[str, Any]
    ) -> Iterator[dict[str, Any] | None]:
        """The objects of a response, whether it streams or not."""
        self._was_reached = True
        if response.status_code != 200:
            data = response.read()
            if response.status_code == 404:
                names = sorted(row["id"] for row in self.models())
                known = [] if self._model in names else names
                raise self.refusals.no_model(known, self.refusals.words(data))
            raise self.refusals.of_status(
                response.status_code, data, dict(response.headers.items()), body
            )
        if "event-stream" not in response.headers.get("content-type", ""):
            yield self._parse(response.read().decode(errors="replace"))
            yield None
            return
        for line in response.iter_lines():
            if not line.startswith("data:"):
                continue
            data_text = line.removeprefix("data:").strip()
            if data_text == "[DONE]":
                yield None
                return
            yield self._parse(data_text)

    def _parse(self, text: str) -> dict[str, Any]:
        try:
            value = json.loads(text)
        except ValueError:
            raise self.refusals.no_json(text) from None
        if not isinstance(value, dict) or not ({"choices", "error", "usage"} & value.keys()):
            raise self.refusals.no_json(text)
        if not isinstance(value.get("choices") or [], list):
            raise self.refusals.no_json(text)
        return value

    def _of_transport(self, error: "httpx.HTTPError") -> EndpointError:
        import httpx

        if isinstance(error, httpx.ConnectTimeout | httpx.ConnectError):
            why = "refuses the connection" if "refused" in str(error).lower() else "is not reached"
            return EndpointError(
                f"{self.address} {why}; is the server running, and backbone.url= its address?",
                passes=self._was_reached,
            )
        if isinstance(error, httpx.TimeoutException):
            return EndpointError(
                f"{self.address} has sent nothing for {self._patience.timeout_s:g} s; raise "
                "backbone.timeout_s= if the model needs longer",
                passes=True,
            )
        return self.refusals.cut_stream()

    def _after(self, tries: int, error: EndpointError) -> EndpointError:
        if tries == 1 or not error.passes:
            return error
        return EndpointError(f"after {tries} tries, {error}", wait_s=error.wait_s)

    def _back_off(
        self, number: int, error: EndpointError, cancelled: threading.Event | None
    ) -> None:
        """Wait before the next try. The server's own wish holds for every request."""
        wait = self._patience.retry_s * 2 ** (number - 1) * random.uniform(0.8, 1.2)
        if error.wait_s is not None:
            if error.wait_s > _LONGEST_WAIT_S:
                raise EndpointError(f"{error}, in {error.wait_s:.0f} s")
            wait = max(wait, error.wait_s)
            with self._lock:
                self._next_at = max(self._next_at, time.monotonic() + error.wait_s)
        _sleep(wait, cancelled)

    def _wait_for_rate(self, cancelled: threading.Event | None) -> None:
        """Begin no earlier than the rate limit and the server allow."""
        rate = self._patience.requests_per_minute
        with self._lock:
            begin = max(self._next_at, time.monotonic())
            self._next_at = begin + (60 / rate if rate else 0.0)
        _sleep(begin - time.monotonic(), cancelled)

    def _body(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The request as this server takes it."""
        whole = {"model": self.model, "stream": True, "stream_options": {"include_usage": True}}
        whole |= body
        if "max_tokens" in self._without and "max_tokens" in whole:
            whole["max_completion_tokens"] = whole["max_tokens"]
        return {name: value for name, value in whole.items() if name not in self._without}

    @property
    def refusals(self) -> Refusals:
        """Makes the errors of this server."""
        return Refusals(self.address, self._model, self._key_env, self._key)

    @property
    def _key(self) -> str:
        return os.environ.get(self._key_env, "").strip() if self._key_env else ""

    def _headers(self) -> dict[str, str]:
        key = self._key
        if not key:
            return {}
        if not key.isascii() or not key.isprintable():
            raise EndpointError(f"the key in {self._key_env} has characters that no key has")
        return {"Authorization": f"Bearer {key}"}

    def _client(self) -> "httpx.Client":
        with self._lock:
            if self._http is None:
                self._http = _new_client(self._patience)
            return self._http


class _End(Exception):
    """The connection was closed in order."""


def check_address(url: str) -> str:
    """The address of a server, without a slash at its end. UserError without a word of its
    credentials.
    """
    try:
        parts = urlsplit(url.strip())
        host, _ = parts.hostname, parts.port
    except ValueError:
        parts, host = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not host:
        raise UserError(
            "backbone.url= needs the address of a server, such as http://localhost:8000/v1"
        )
    if parts.username is not None or parts.password is not None or parts.query:
        raise UserError(
            "backbone.url= holds a name, a password or a query; leave them out, and give the key "
            "in the environment variable that backbone.key_env= names"
        )
    return parts._replace(fragment="").geturl().rstrip("/")


def _new_client(patience: Patience) -> "httpx.Client":
    import httpx

    # a proxy of the environment is for other machines
    direct = {f"all://{host}": None for host in ("localhost", "127.0.0.1", "[::1]")}
    return httpx.Client(
        timeout=httpx.Timeout(patience.timeout_s, connect=min(_CONNECT_S, patience.timeout_s)),
        limits=httpx.Limits(max_connections=None),
        mounts=direct,
    )


def _sleep(seconds: float, cancelled: threading.Event | None) -> None:
    if seconds <= 0:
        return
    if cancelled is None:
        time.sleep(seconds)
    else:
        cancelled.wait(seconds)
    raise_if_cancelled(cancelled)


def _content(choice: Mapping[str, Any]) -> str:
    """The text of a choice, of a stream or not; thoughts have fields of their own."""
    holder = choice.get("delta") or choice.get("message") or {}
    content = holder.get("content")
    return content if isinstance(content, str) else ""


def _first_tokens(choice: Mapping[str, Any]) -> tuple[tuple[str, float], ...]:
    """Candidates for the first token of a choice with their log-probabilities, if it has them."""
    try:
        rows = choice["logprobs"]["content"][0]["top_logprobs"]
        return tuple((str(row["token"]), float(row["logprob"])) for row in rows)
    except (KeyError, IndexError, TypeError, ValueError):
        return ()


def _count(usage: Mapping[str, Any], kind: str) -> int:
    value = usage.get(f"{kind}_tokens")
    return value if isinstance(value, int) else 0
