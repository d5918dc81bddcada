"""What a server of a model answers in place of an answer, as one sentence each.

Knows status codes and the error bodies of OpenAI's API; sends nothing. No sentence has a key in it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from time import time
from typing import Any

from encoders.errors import UserError

_PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_MOST_LETTERS = 160  # of a server's own words
_PICTURE_WORDS = ("image", "picture", "vision", "multimodal", "multi-modal", "mmproj")
_LENGTH_WORDS = ("context length", "context size", "maximum context", "too many tokens", "n_ctx")


class EndpointError(UserError):
    """A server gave no answer.

    passes: the same request may be answered later. wait_s: how long the server wants to be left
    alone, if it said so.
    """

    def __init__(self, message: str, *, passes: bool = False, wait_s: float | None = None) -> None:
        super().__init__(message)
        self.passes, self.wait_s = passes, wait_s


class RefusedFieldError(EndpointError):
    """The server does not take a field that a request can do without."""

    def __init__(self, message: str, field: str) -> None:
        super().__init__(message)
        self.field = field


@dataclass(frozen=True, slots=True)
class Refusals:
    """Makes the errors of one server."""

    address: str  # without credentials
    model: str
    key_env: str  # name of the environment variable
    key: str  # never in a sentence

    def of_status(
        self, status: int, body: bytes, headers: Mapping[str, str], sent: Mapping[str, Any]
    ) -> EndpointError:
        """For a response that is not 200. sent: the body of the request."""
        said = self.words(body)
        what = f"{self.address} answers {status}{f' ({said})' if said else ''}"
        if status in (400, 422):
            return self._bad_request(what, said, sent)
        if 300 <= status < 400:
            return EndpointError(f"{self.address} sends requests elsewhere; give that address")
        if status == 401:
            remedy = (
                f"the key in {self.key_env} is not right"
                if self.key
                else f"put a key into the environment variable {self.key_env}"
            )
            return EndpointError(f"{self.address} refuses the key (401); {remedy}")
        if status == 403:
            return EndpointError(f"{what}: the key may not use model {self.model}")
        if status == 413:
            return EndpointError(
                f"{what}: the request is too large; lower backbone.max_images= or "
                "backbone.image_size="
            )
        wait = _retry_after(headers.get("retry-after", ""))
        if status == 429:
            passes = "insufficient_quota" not in body.decode(errors="replace")
            remedy = "lower backbone.parallel= or set backbone.requests_per_minute="
            return EndpointError(f"{what}: too many requests; {remedy}", passes=passes, wait_s=wait)
        return EndpointError(what, passes=status in _PASSING, wait_s=wait)

    def of_event(self, error: Any) -> EndpointError:
        """For an error in the middle of a stream."""
        said = self.words(json.dumps({"error": error}).encode())
        return EndpointError(f"{self.address} broke off the answer ({said or 'no reason given'})")

    def no_json(self, text: str) -> EndpointError:
        """For a response that is not of OpenAI's API."""
        return EndpointError(
            f"{self.address} answers something else than OpenAI's JSON "
            f"({self._short(text) or 'nothing'}); is backbone.url= the one that ends in /v1?"
        )

    def cut_stream(self) -> EndpointError:
        """For a stream that ends before its answer does."""
        return EndpointError(f"{self.address} cut the answer off", passes=True)

    def no_model(self, names: list[str], status_words: str) -> EndpointError:
        """For 404. names: of the models that are there."""
        if not names:
            return EndpointError(
                f"{self.address} has no /chat/completions, or no model {self.model} (404"
                f"{f': {status_words}' if status_words else ''}); backbone.url= usually ends in /v1"
            )
        return EndpointError(f"{self.address} has no model {self.model}; it has {_listed(names)}")

    def no_logprobs(self, said: str = "") -> EndpointError:
        """For a server that does not say how likely its tokens are."""
        return EndpointError(
            f"{self.address} gives no log-probabilities of tokens{f' ({said})' if said else ''}; "
            "use option_choice=parse, or a server with top_logprobs"
        )

    def which_model(self, names: list[str]) -> EndpointError:
        """For a question to no model by name. names: of the models that are there."""
        return EndpointError(
            f"backbone.model= is missing; {self.address} has {_listed(names)}"
            if names
            else f"backbone.model= is missing, and {self.address} does not say which models it has"
        )

    def words(self, body: bytes) -> str:
        """What the server itself says of an error, short and without the key."""
        text = body.decode(errors="replace")
        try:
            value = json.loads(text)
        except ValueError:
            return "" if text.lstrip().startswith("<") else self._short(text)
        for name in ("error", "detail", "message"):
            if isinstance(value, dict) and name in value:
                value = value[name]
        return self._short(value if isinstance(value, str) else json.dumps(value))

    def _short(self, text: str) -> str:
        plain = " ".join(text.split())
        if self.key:
            plain = plain.replace(self.key, "***")
        return plain[:_MOST_LETTERS].rstrip(". ") + ("..." if len(plain) > _MOST_LETTERS else "")

    def _bad_request(self, what: str, said: str, sent: Mapping[str, Any]) -> EndpointError:
        lower = said.lower()
        for field in ("stream_options", "response_format", "max_tokens", "temperature"):
            if field in sent and field in lower:
                return RefusedFieldError(what, field)
        if "top_logprobs" in sent and "logprob" in lower:
            return self.no_logprobs(said)
        if any(word in lower for word in _LENGTH_WORDS):
            return EndpointError(
                f"{what}: the request is longer than the model's context; lower "
                "backbone.max_images=, or set backbone.context="
            )
        if has_images(sent) and any(word in lower for word in _PICTURE_WORDS):
            return EndpointError(
                f"{what}: it takes no pictures; choose a model that sees, or backbone.images=false"
            )
        return EndpointError(what)


def _listed(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def has_images(body: Mapping[str, Any]) -> bool:
    """Whether a chat request has pictures."""
    return any(
        part.get("type") == "image_url"
        for message in body.get("messages", ())
        if isinstance(message.get("content"), list)
        for part in message["content"]
    )


def _retry_after(text: str) -> float | None:
    """Seconds of a Retry-After header; None without one."""
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time())
    except (ValueError, TypeError):
        return None
