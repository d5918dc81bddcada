"""A model behind an address as the model of a run: what it is asked with, and frames without visual
tokens.

Encoding needs no model: a frame is one empty token in the bank, so that budgets count frames. Knows
no bank and no film.
"""

import hashlib
import threading
from dataclasses import replace
from typing import Any

import torch

from encoders.errors import UserError
from encoders.extras import require_extra
from encoders.schema import Frames, VisualTokens
from pipeline.endpoint import forms
from pipeline.endpoint.chat import Limits
from pipeline.endpoint.client import ChatClient, Patience
from pipeline.endpoint.film_pictures import parse_size, picture_format

PATH = "none"  # the model that a bank of such frames names
# what servers call the length of a model's context, in /v1/models
_CONTEXT_NAMES = ("max_model_len", "loaded_context_length", "context_length", "max_context_length")


class Endpoint:
    """Any OpenAI-compatible server, as a VideoModel."""

    path = PATH
    dtype = torch.float32
    temporal_patch = 1
    keeps_shape = False
    is_narrow = True
    tokens_per_frame = 1
    reads_text = True
    questions: str | None = None

    def __init__(
        self,
        *,
        url: str,
        model: str,
        key_env: str = "OPENAI_API_KEY",
        images: bool = True,
        image_size: int | str = 768,
        image_format: str = "jpeg",
        image_quality: int = 85,
        max_images: int = 24,
        max_bytes: int = 16_000_000,
        image_tokens: int = 800,
        context: int | None = None,
        max_tokens: int = 512,
        temperature: float | None = 0.0,
        answer_form: str = "line",
        extra: dict[str, Any] | None = None,
        parallel: int = 4,
        requests_per_minute: float = 0.0,
        timeout_s: float = 120.0,
        tries: int = 5,
        retry_s: float = 1.0,
        price_prompt: float | None = None,
        price_answer: float | None = None,
        frame_size: str = "224x224",
        device: str = "cpu",
    ) -> None:
        """UserError on values that no server could be asked with. Sends nothing.

        extra: further fields of each request, such as {"seed": 0}. frame_size: (width, height) in
        pixels of the frames that the frame embedder sees. device: of the frame embedder.
        """
        _check_ranges(locals())
        require_extra("endpoint", "backbone=endpoint")
        patience = Patience(timeout_s, tries, retry_s, parallel, requests_per_minute)
        self.client = ChatClient(url, model.strip(), key_env, patience)
        self.images, self.parallel = images, parallel
        self.picture_format = picture_format(image_size, image_format, image_quality)
        self.form = forms.answer_form(answer_form)
        self.device = torch.device("cpu")
        self._frame_size = _both(frame_size)
        self._limits = self._sent = Limits(
            max_images if images else 0, max_bytes, context, image_tokens, max_tokens
        )
        self._fields = {"max_tokens": max_tokens} | (
            {} if temperature is None else {"temperature": temperature}
        )
        self._extra = extra or {}
        self._prices = price_prompt, price_answer
        self._lock = threading.Lock()
        self._was_asked = context is not None
        self.most_frames = max_images

    @property
    def model(self) -> str:
        """The model's name. Without backbone.model= it is that of the server's one model; UserError
        if there are several, or none.
        """
        return self.client.model

    @property
    def frame_size(self) -> tuple[int, int]:
        return self._frame_size

    def frame_size_for(self, ratio: float) -> tuple[int, int]:
        return self._frame_size

    def encode_frames(self, frames: Frames) -> VisualTokens:
        """One token of width 1, a zero, for each frame."""
        count = len(frames)
        pos = torch.zeros(count, 3, dtype=torch.int32)
        pos[:, 0] = torch.arange(count)
        return VisualTokens(
            torch.zeros(count, 1), pos, torch.arange(count + 1), torch.from_numpy(frames.times)
        )

    def fingerprint(self) -> str:
        """The same for every server: nothing in a bank depends on it."""
        return hashlib.sha256(PATH.encode()).hexdigest()[:16]

    @property
    def settings(self) -> str:
        """All that a request to the model holds, beside its content, and that decides which
        pictures fit in."""
        body = self._fields | dict(self.form.fields()) | self._extra
        return f"{self._sent}, {self.picture_format}, {type(self.form).__name__}, {body}"

    def limits(self) -> Limits:
        """What a request may hold. The context is asked of the server once, if it was not set."""
        with self._lock:
            if not self._was_asked:
                self._was_asked = True
                rows = [row for row in self.client.models() if row["id"] == self.model]
                context = _context(rows[0]) if rows else None
                self._limits = replace(self._limits, context=context)
            return self._limits

    def request(self, content: str | list[dict[str, Any]]) -> dict[str, Any]:
        """The body of a chat request with one message."""
        message = {"role": "user", "content": content}
        return {"messages": [message]} | self._fields | dict(self.form.fields()) | self._extra

    def write(self, prompt: str, most_tokens: int) -> str:
        """The answer to a text alone, as of a `pipeline.text_model.TextModel`. EndpointError."""
        body = self.request(prompt) | {"max_tokens": most_tokens}
        body.pop("response_format", None)  # the form of answers about a video
        return forms.PlainForm().parse(self.client.complete(body).text).text

    def cost(self, prompt_tokens: int, answer_tokens: int) -> float | None:
        """By the prices for 10^6 tokens; None where none is set."""
        if self._prices == (None, None):
            return None
        prompt, answer = (price or 0.0 for price in self._prices)
        return (prompt * prompt_tokens + answer * answer_tokens) / 1e6


def _context(row: dict[str, Any]) -> int | None:
    """Tokens of the context in a row of /v1/models."""
    meta = row.get("meta")
    values = [row.get(name) for name in _CONTEXT_NAMES]
    values += [meta.get("n_ctx")] if isinstance(meta, dict) else []
    known = [value for value in values if isinstance(value, int) and value > 0]
    return known[0] if known else None


def _both(text: str) -> tuple[int, int]:
    size = parse_size(text)
    return (size, size) if isinstance(size, int) else size


_LEAST = {
    "max_images": 0,
    "max_bytes": 1,
    "image_tokens": 1,
    "context": 1,
    "max_tokens": 1,
    "temperature": 0,
    "parallel": 1,
    "requests_per_minute": 0,
    "timeout_s": 0.001,
    "tries": 1,
    "retry_s": 0,
    "price_prompt": 0,
    "price_answer": 0,
}


def _check_ranges(values: dict[str, Any]) -> None:
    """UserError on a number below its least."""
    for name, least in _LEAST.items():
        value = values[name]
        if value is not None and not least <= value < float("inf"):
            raise UserError(f"backbone.{name}={value} does not fit; use {least} or more")
