"""The body of a chat request -> what is wanted: a question, a video, how to answer. Knows OpenAI's JSON; no model and no file.

A video comes as a content part of a user message, in one of the forms that clients use:
    {"type": "file", "file": {"file_id": "file-..."}}                   handed in before
    {"type": "file", "file": {"file_data": "data:video/mp4;base64,..."}}
    {"type": "video_url", "video_url": {"url": "https://... or data:..."}}
The last one of the conversation counts; the question is the text of the last message. Beyond OpenAI's: asked_at (seconds of the
video, nothing after it is seen), cite_in_text (false: moments only as fields, not in the text).
"""

import base64
import binascii
import json
import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from pipeline.server.errors import ApiError

MOST_MESSAGES = 256


class _Url(BaseModel):
    url: str


class _File(BaseModel):
    file_id: str | None = None
    file_data: str | None = None
    filename: str = ""


class _TextPart(BaseModel):
    type: Literal["text"]
    text: str


class _VideoPart(BaseModel):
    type: Literal["video_url"]
    video_url: _Url


class _FilePart(BaseModel):
    type: Literal["file"]
    file: _File


_Part = Annotated[_TextPart | _VideoPart | _FilePart, Field(discriminator="type")]


class _Message(BaseModel):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[_Part] | None = None


class _StreamOptions(BaseModel):
    include_usage: bool = False


class _Body(BaseModel):
    model: str
    messages: list[_Message] = Field(min_length=1, max_length=MOST_MESSAGES)
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
class Video:
    """One of the three is there."""

    file_id: str = ""
    url: str = ""
    data: bytes = b""
    filename: str = "video"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a chat request asks for."""

    model: str
    question: str
    video: Video
    asked_at: float  # seconds; inf = all of the video
    stream: bool
    usage: bool  # whether a stream ends with its token counts
    cite_in_text: bool
    warning: str  # what of the request is not heeded


def read(data: bytes, *, most_letters: int) -> Wanted:
    """ApiError 400 when it is no JSON or cannot be meant, 422 when a field is wrong. most_letters: of a question."""
    try:
        told = json.loads(data)
    except (ValueError, RecursionError):
        raise ApiError(400, "The body is not valid JSON.", code="invalid_json") from None
    try:
        body = _BODY.validate_python(told)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(step) for step in first["loc"]) or "body"
        raise ApiError(
            422, f"{where}: {first['msg']}.", code="invalid_field", param=where
        ) from None
    _refuse_what_is_not_there(body)
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
    if len(question) > most_letters:
        raise ApiError(
            400, f"The question has {len(question)} letters; at most {most_letters} are read here.", param="messages",
            code="question_too_long",
        )  # fmt: skip
    return Wanted(
        model=body.model,
        question=question,
        video=_video(body.messages),
        asked_at=math.inf if body.asked_at is None else body.asked_at,
        stream=body.stream,
        usage=body.stream_options is not None and body.stream_options.include_usage,
        cite_in_text=body.cite_in_text,
        warning=_unheeded(body),
    )


def _refuse_what_is_not_there(body: _Body) -> None:
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


def _unheeded(body: _Body) -> str:
    """What of the request does nothing, in words."""
    roles = {message.role for message in body.messages}
    found = {
        "System messages are not read.": bool(roles & {"system", "developer"}),
        "Earlier rounds are not read.": "assistant" in roles,
        "max_tokens is not heeded.": bool(body.max_tokens or body.max_completion_tokens),
        "Answers are greedy; temperature is not heeded.": bool(body.temperature),
    }
    return " ".join(text for text, is_so in found.items() if is_so)


def _video(messages: list[_Message]) -> Video:
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
            'No message holds a video; add a part such as {"type": "file", "file": {"file_id": "file-..."}}.',
        )
    part = parts[-1]
    if isinstance(part, _VideoPart):
        url = part.video_url.url
        return Video(data=_decoded(url)) if url[:5].lower() == "data:" else Video(url=url)
    if part.file.file_id is not None:
        return Video(file_id=part.file.file_id)
    if part.file.file_data is not None:
        return Video(data=_decoded(part.file.file_data), filename=part.file.filename or "video")
    raise ApiError(422, "file: give file_id, or file_data as a data: URL.", param="file")


def _decoded(url: str) -> bytes:
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
