"""The JSON of OpenAI's Responses API -> that of a chat request, which the server reads.

Knows JSON alone; long strings stay where they are in the body. Nothing is stored, so each request
holds its whole conversation.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import Field, ValidationError

from pipeline.server.errors import ApiError
from pipeline.server.intake.chat_body import Fields

# of a message's parts: their type -> that of a chat request
_TEXTS = ("input_text", "output_text", "text")
_ROLES = ("system", "developer", "user", "assistant")
# what a request may hold, and what asks for something that there is not
_REFUSED = {
    "previous_response_id": "responses are not stored; send the earlier messages in input",
    "conversation": "conversations are not stored; send the earlier messages in input",
    "background": "responses are not stored; wait for the answer",
    "prompt": "prompts are not stored; send the text in instructions",
    "tools": "tools are not supported",
    "n": "there is one response",
}
# what no answer depends on here: asking for it changes nothing
_SILENT = frozenset(
    "store metadata user truncation parallel_tool_calls service_tier safety_identifier "
    "prompt_cache_key include reasoning tool_choice".split()
)


class ResponsesBody(Fields):
    model: str
    input: str | list[Any]
    instructions: str | None = None
    max_output_tokens: int | None = Field(None, ge=1)
    stream: bool = False
    text: dict[str, Any] | None = None


def as_chat(value: Any) -> dict[str, Any]:
    """The same request as JSON of a chat request. ApiError 400 on what is not to be had, 422 on a
    field that is wrong."""
    try:
        body = ResponsesBody.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(step) for step in first["loc"]) or "body"
        raise _invalid(where, first["msg"]) from None
    more = dict(body.model_extra or {})
    for name, why in _REFUSED.items():
        if more.pop(name, None):
            raise ApiError(400, f"{name} is not to be had: {why}.", param=name)
    messages = [{"role": "system", "content": body.instructions}] if body.instructions else []
    items = [{"role": "user", "content": body.input}] if isinstance(body.input, str) else body.input
    messages += [_message(item, f"input.{number}") for number, item in enumerate(items)]
    if not messages or messages[-1]["role"] != "user":
        raise ApiError(
            400, "The last message must be the user's: it holds the question.", param="input"
        )
    chat = {name: one for name, one in more.items() if name not in _SILENT}
    chat |= {"model": body.model, "messages": messages, "stream": body.stream}
    chat |= {"max_completion_tokens": body.max_output_tokens}
    return chat | {"response_format": _response_format((body.text or {}).get("format"))}


def _response_format(form: Any) -> Any:
    """The form of an answer as a chat request has it: its schema is one level deeper."""
    if not isinstance(form, Mapping) or form.get("type") != "json_schema":
        return form
    return {"type": "json_schema", "json_schema": {**form}}


def _message(item: Any, where: str) -> dict[str, Any]:
    if not isinstance(item, Mapping) or item.get("type", "message") != "message":
        raise _invalid(where, "only messages are taken")
    role, content = item.get("role"), item.get("content")
    if role not in _ROLES:
        raise _invalid(f"{where}.role", f"use one of {', '.join(_ROLES)}")
    if isinstance(content, list):
        content = [_part(part, f"{where}.content.{at}") for at, part in enumerate(content)]
    elif not isinstance(content, str):
        raise _invalid(f"{where}.content", "give a text or a list of parts")
    return {"role": role, "content": content}


def _part(part: Any, where: str) -> dict[str, Any]:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind in _TEXTS:
        return {"type": "text", "text": part.get("text")}
    if kind == "input_image":
        return {"type": "image_url", "image_url": {"url": part.get("image_url")}}
    if kind == "input_file":
        names = ("file_id", "file_data", "filename")
        given = {name: part[name] for name in names if part.get(name) is not None}
        if part.get("file_url") is not None:
            return {"type": "video_url", "video_url": {"url": part["file_url"]}}
        return {"type": "file", "file": given}
    raise _invalid(where, "use a part of type input_text, input_file or input_image")


def _invalid(where: str, why: str) -> ApiError:
    return ApiError(422, f"{where}: {why}.", code="invalid_field", param=where)
