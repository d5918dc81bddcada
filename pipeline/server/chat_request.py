"""Parses and validates the body of a chat request: a question, a video, answer options.

Knows OpenAI's JSON; no model and no files. A video is a content part of a user message, in one of
the forms that clients use:

    {"type": "file", "file": {"file_id": "file-..."}}            uploaded before
    {"type": "file", "file": {"file_data": "data:video/mp4;base64,..."}}
    {"type": "video_url", "video_url": {"url": "https://... or data:..."}}

The last video of the conversation counts. The question is the text of the last message. Two fields
are extensions: asked_at (video seconds; frames after it are not visible to the answer) and
cite_in_text (false: citations only as fields, not in the text).
"""

import base64
import binascii
import json
import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from pipeline.server.errors import ApiError

MAX_MESSAGES = 256


class _Url(BaseModel):
    url: str


class _File(BaseModel):
    file_id: str | None = None
    file_data: str | None = None
    filename: str = ""


class _TextPart(BaseModel):
    type: Literal["text"]
    text: str


class _VideoUrlPart(BaseModel):
    type: Literal["video_url"]
    video_url: _Url


class _FilePart(BaseModel):
    type: Literal["file"]
    file: _File


_Part = Annotated[_TextPart | _VideoUrlPart | _FilePart, Field(discriminator="type")]


class _Message(BaseModel):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[_Part] | None = None


class _StreamOptions(BaseModel):
    include_usage: bool = False


class _Body(BaseModel):
    model: str
    messages: list[_Message] = Field(min_length=1, max_length=MAX_MESSAGES)
    stream: bool = False
    stream_options: _StreamOptions | None = None
    n: int | None = None
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    tools: list[Any] | None = None
    asked_at: float | None = Field(None, ge=0, allow_inf_nan=False)
    cite_in_text: bool = True


_BODY = TypeAdapter(_Body)


@dataclass(frozen=True, slots=True)
class VideoReference:
    """How a request names its video. Exactly one of file_id, url, and data is set."""

    file_id: str = ""
    url: str = ""
    data: bytes = b""
    filename: str = "video"


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A validated chat request."""

    model: str
    question: str
    video: VideoReference
    asked_at: float  # video seconds; inf = the whole video
    stream: bool
    usage: bool  # whether the last chunk of a stream carries token counts
    cite_in_text: bool
    warning: str  # names the fields of the request that have no effect


def parse_body(data: bytes, *, max_letters: int) -> ChatRequest:
    """Parse a request body.

    ApiError 400 when it is not JSON or not supported, 422 when a field is invalid. max_letters:
    longest question accepted.
    """
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        raise ApiError(400, "The body is not valid JSON.", code="invalid_json") from None
    try:
        body = _BODY.validate_python(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(step) for step in first["loc"]) or "body"
        raise ApiError(
            422, f"{where}: {first['msg']}.", code="invalid_field", param=where
        ) from None
    _check_unsupported(body)
    last = body.messages[-1]
    if last.role != "user":
        raise ApiError(
            400, "The last message must be the user's: it holds the question.", param="messages"
        )
    question = _text(last).strip()
    if not question:
        raise ApiError(400, "The last message holds no question; add a text.", param="messages")
    if not _is_unicode(question):
        raise ApiError(
            400, "The question holds halves of characters (lone surrogates).", param="messages"
        )
    if len(question) > max_letters:
        raise ApiError(
            400,
            f"The question has {len(question)} letters; at most {max_letters} are read here.",
            param="messages",
            code="question_too_long",
        )
    return ChatRequest(
        model=body.model,
        question=question,
        video=_video(body.messages),
        asked_at=math.inf if body.asked_at is None else body.asked_at,
        stream=body.stream,
        usage=body.stream_options is not None and body.stream_options.include_usage,
        cite_in_text=body.cite_in_text,
        warning=_ignored_fields(body),
    )


def _check_unsupported(body: _Body) -> None:
    if body.n not in (None, 1):
        raise ApiError(400, f"n={body.n} is not supported: there is one answer.", param="n")
    if body.tools:
        raise ApiError(400, "tools are not supported.", param="tools")


def _text(message: _Message) -> str:
    if message.content is None or isinstance(message.content, str):
        return message.content or ""
    return "\n".join(part.text for part in message.content if isinstance(part, _TextPart))


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _ignored_fields(body: _Body) -> str:
    """A sentence for each field of the request that has no effect."""
    roles = {message.role for message in body.messages}
    ignored = {
        "System messages are not read.": bool(roles & {"system", "developer"}),
        "Earlier rounds are not read.": "assistant" in roles,
        "max_tokens is not heeded.": bool(body.max_tokens or body.max_completion_tokens),
        "Answers are greedy; temperature is not heeded.": bool(body.temperature),
    }
    return " ".join(text for text, is_so in ignored.items() if is_so)


def _video(messages: list[_Message]) -> VideoReference:
    parts = [
        part
        for message in messages
        if message.role == "user" and isinstance(message.content, list)
        for part in message.content
        if not isinstance(part, _TextPart)
    ]
    if not parts:
        raise ApiError(
            400,
            "No message holds a video; add a part such as "
            '{"type": "file", "file": {"file_id": "file-..."}}.',
        )
    part = parts[-1]
    if isinstance(part, _VideoUrlPart):
        url = part.video_url.url
        return (
            VideoReference(data=_decode_base64(url))
            if url[:5].lower() == "data:"
            else VideoReference(url=url)
        )
    if part.file.file_id is not None:
        return VideoReference(file_id=part.file.file_id)
    if part.file.file_data is not None:
        return VideoReference(
            data=_decode_base64(part.file.file_data), filename=part.file.filename or "video"
        )
    raise ApiError(422, "file: give file_id, or file_data as a data: URL.", param="file")


def _decode_base64(url: str) -> bytes:
    head, comma, text = url.partition(",")
    if not comma or not head.lower().startswith("data:") or not head.lower().endswith(";base64"):
        raise ApiError(
            400,
            "A video in the request is written as data:video/mp4;base64,....",
            code="invalid_base64",
        )
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ApiError(400, "The base64 of the video is damaged.", code="invalid_base64") from None
    if not data:
        raise ApiError(400, "The video in the request is empty.", code="invalid_base64")
    return data
