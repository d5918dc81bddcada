"""The JSON of a chat request, as OpenAI's clients write it. Knows no rule beyond types and ranges.

Fields that are not read here are remembered, for the warning.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

MAX_MESSAGES = 256
MAX_ANSWERS = 8  # n


class Fields(BaseModel):
    """Fields that are read; all others are remembered, for the warning."""

    model_config = ConfigDict(extra="allow", strict=True)  # false is no 0, and "3" no 3


class _Url(Fields):
    url: str


class _File(Fields):
    file_id: str | None = None
    file_data: str | None = None
    filename: str = ""


class TextPart(Fields):
    type: Literal["text"]
    text: str


class VideoUrlPart(Fields):
    type: Literal["video_url"]
    video_url: _Url


class FilePart(Fields):
    type: Literal["file"]
    file: _File


class ImagePart(Fields):
    type: Literal["image_url"]
    image_url: _Url


VideoPart = VideoUrlPart | FilePart
Part = TextPart | VideoPart | ImagePart
PARTS: dict[str, type[Part]] = {
    "text": TextPart,
    "file": FilePart,
    "video_url": VideoUrlPart,
    "image_url": ImagePart,
}
SHAPES = {
    "text": '{"type": "text", "text": "..."}',
    "file": '{"type": "file", "file": {"file_id": "file-..."}}',
    "video_url": '{"type": "video_url", "video_url": {"url": "https://... or data:..."}}',
    "image_url": '{"type": "image_url", "image_url": {"url": "data:image/..."}}',
}
TYPES = "text, file, video_url or image_url"


# in the OpenAPI document; a part that does not fit is refused with its own sentence
_PART: JsonDict = {
    "type": "object",
    "required": ["type"],
    "properties": {
        "type": {"enum": [*PARTS]},
        "text": {"type": "string"},
        "file": {"type": "object", "properties": {"file_id": {"type": "string"}}},
        "video_url": {"type": "object", "properties": {"url": {"type": "string"}}},
        "image_url": {"type": "object", "properties": {"url": {"type": "string"}}},
    },
}
_CONTENT: JsonDict = {
    "anyOf": [{"type": "string"}, {"type": "array", "items": _PART}, {"type": "null"}]
}


class Message(Fields):
    role: Literal["system", "developer", "user", "assistant"]
    # None, a text, or a list of parts; see chat_request.py
    content: Any = Field(None, json_schema_extra=_CONTENT)


class _StreamOptions(BaseModel):
    model_config = ConfigDict(strict=True)

    include_usage: bool = False


class ChatBody(Fields):
    model: str
    messages: list[Message] = Field(min_length=1, max_length=MAX_MESSAGES)
    stream: bool = False
    stream_options: _StreamOptions | None = None
    n: int | None = Field(None, ge=1, le=MAX_ANSWERS)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2, allow_inf_nan=False)
    top_p: float | None = Field(None, ge=0, le=1, allow_inf_nan=False)
    seed: int | None = None
    stop: str | list[str] | None = None
    logprobs: bool | int | None = None
    top_logprobs: int | None = None
    response_format: dict[str, Any] | None = None
    tools: list[Any] | None = None
    asked_at: float | None = Field(None, ge=0, allow_inf_nan=False)
    cite_in_text: bool = True


# Values that ask for what happens anyway. Empty ones (null, false, 0, "", [], {}) do as well.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "best_of": (1,),
    "tool_choice": ("none", "auto"),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
}
