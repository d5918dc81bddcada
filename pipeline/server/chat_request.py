"""Parses and validates the body of a chat request: a question, a video, answer options.

Knows OpenAI's JSON; no model and no files. A video is a content part of a user message, in one of
the forms that clients use:

    {"type": "file", "file": {"file_id": "file-..."}}            uploaded before
    {"type": "file", "file": {"file_data": "data:video/mp4;base64,..."}}
    {"type": "video_url", "video_url": {"url": "https://... or data:..."}}

In place of a video, the last message may hold pictures in time order, as other servers take them:

    {"type": "text", "text": "[00:31]"}                          the time of the next picture
    {"type": "image_url", "image_url": {"url": "data:image/..."}}

The last video of the conversation counts. The question is the text of the last message; earlier
messages are the rounds that it may refer to, and system messages stand before them. Two fields are
extensions: asked_at (video seconds; frames after it are not visible to the answer) and cite_in_text
(false: citations only as fields, not in the text).
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from encoders.models.generation import Generation
from pipeline.conversation.round_memory import Texts
from pipeline.server.errors import ApiError
from pipeline.server.intake import bounded_json
from pipeline.server.intake.bounded_json import LongText
from pipeline.server.intake.chat_body import (
    NEUTRAL,
    PARTS,
    SHAPES,
    TYPES,
    ChatBody,
    Fields,
    FilePart,
    ImagePart,
    Message,
    Part,
    TextPart,
    VideoPart,
    VideoUrlPart,
)
from pipeline.server.intake.inline_video import InlineVideo

MAX_PICTURES = 256
_MAX_STOPS = 16
_STOP_LETTERS = 256
_SCHEMA_LETTERS = 16_384
# minutes and seconds, behind a number if wanted: "3. [00:31]"
_TIME = re.compile(r"\s*(?:\d{1,4}\.\s*)?\[(\d{1,6}):(\d{2}(?:\.\d{1,6})?)\]:?\s*")
_MAX_NAMES = 8  # of ignored fields in a warning


@dataclass(frozen=True, slots=True)
class VideoReference:
    """How a request names its video. Exactly one of file_id, url, and data is set."""

    file_id: str = ""
    url: str = ""
    data: InlineVideo | None = None
    filename: str = "video"


@dataclass(frozen=True, slots=True)
class InlinePicture:
    """A picture of a request, and the second that it belongs to."""

    time: float
    data: InlineVideo


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A validated chat request, about a video or about pictures."""

    model: str
    question: str
    instructions: str  # system messages
    rounds: tuple[Texts, ...]  # earlier ones, in order
    video: VideoReference | None  # None: about the pictures, or else about the whole bank
    pictures: tuple[InlinePicture, ...]  # rising times
    asked_at: float  # video seconds; inf = the whole video
    stream: bool
    usage: bool  # whether the last chunk of a stream carries token counts
    cite_in_text: bool
    generation: Generation
    answers: int  # n
    warning: str  # names the fields of the request that have no effect


@dataclass(frozen=True, slots=True)
class Abilities:
    """What the model behind the server reads and heeds, beside the question."""

    rounds: bool = False  # earlier rounds
    instructions: bool = False  # system messages


def parse_body(
    data: bytearray,
    *,
    max_letters: int,
    max_tokens: int,
    abilities: Abilities,
    bank_model: str = "",
    as_chat: Callable[[Any], Any] = lambda value: value,
) -> ChatRequest:
    """Parse a request body. Its video stays in `data` and is decoded when it is stored. as_chat: of
    another API's JSON, that of a chat request.

    ApiError 400 when it is not JSON or not supported, 413 when it has too many parts, 422 when a
    field is invalid. max_letters: longest question accepted. max_tokens: of the longest answer that
    may be asked for. bank_model: the model that answers from the whole bank; "": there is none.
    """
    document = bounded_json.parse(data)
    try:
        body = ChatBody.model_validate(as_chat(document.value))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(step) for step in first["loc"]) or "body"
        raise _invalid_field(where, first["msg"]) from None
    parts = [_parse_parts(message, index) for index, message in enumerate(body.messages)]
    _check_unsupported(body)
    if body.messages[-1].role != "user":
        raise ApiError(
            400, "The last message must be the user's: it holds the question.", param="messages"
        )
    parts[-1], pictures = _pictures(parts[-1], document.long_texts)
    question = _question(parts[-1], document.long_texts, max_letters)
    videos = [
        [part for part in row if isinstance(part, VideoPart)]
        for row, message in zip(parts, body.messages, strict=True)
        if message.role == "user"
    ]
    asks_bank = bool(bank_model) and body.model == bank_model
    if asks_bank and (pictures or any(videos)):
        raise ApiError(
            400,
            f"The model {bank_model} answers from the whole bank; leave videos and pictures out, "
            "or use another model.",
            param="model",
        )
    generation = _generation(body, document.long_texts, max_tokens)
    return ChatRequest(
        model=body.model,
        question=question,
        instructions=_instructions(body, parts, document.long_texts, max_letters),
        rounds=_rounds(body, parts, document.long_texts, max_letters),
        video=None if pictures or asks_bank else _video(videos, document.long_texts, bank_model),
        pictures=pictures,
        asked_at=math.inf if body.asked_at is None else body.asked_at,
        stream=body.stream,
        usage=body.stream_options is not None and body.stream_options.include_usage,
        cite_in_text=body.cite_in_text and not generation.form,  # it would be no JSON any more
        generation=generation,
        answers=body.n or 1,
        warning=_warning(body, parts, videos, abilities),
    )


def _parse_parts(message: Message, index: int) -> list[Part]:
    """The parts of a message. ApiError 422 that names the part which is not taken."""
    where, content = f"messages.{index}.content", message.content
    if content is None:
        return []
    if isinstance(content, str):
        return [TextPart(type="text", text=content)]
    if not isinstance(content, list):
        raise _invalid_field(where, "give a text or a list of parts")
    if message.role == "assistant":  # a client sends back what another server refused
        content = [_refusal_as_text(item) for item in content]
    return [_parse_part(item, f"{where}.{number}") for number, item in enumerate(content)]


def _refusal_as_text(item: Any) -> Any:
    if isinstance(item, dict) and item.get("type") == "refusal":
        return {"type": "text", "text": item.get("refusal")}
    return item


def _parse_part(item: Any, where: str) -> Part:
    kind = item.get("type") if isinstance(item, dict) else None
    if not isinstance(kind, str):
        raise _invalid_field(where, f"a part is an object with a type; use {TYPES}")
    if kind not in PARTS:
        raise _invalid_field(where, f"a part of type {_printable(kind)} is not taken; use {TYPES}")
    try:
        return PARTS[kind].model_validate(item)
    except ValidationError:
        raise _invalid_field(
            where,
            f"a part of type {kind} is written as {SHAPES[kind]}; the types that are taken are "
            "text, file, video_url and image_url",
        ) from None


def _pictures(
    parts: list[Part], long_texts: dict[str, LongText]
) -> tuple[list[Part], tuple[InlinePicture, ...]]:
    """The pictures of the last message, and its other parts without the times of pictures.

    Without times there is a picture a second. ApiError 422 for pictures that are no data: URL, or
    not in time order; 413 for too many.
    """
    rest: list[Part] = []
    pictures: list[InlinePicture] = []
    for part in parts:
        if not isinstance(part, ImagePart):
            rest.append(part)
            continue
        url = part.image_url.url.strip()
        if url not in long_texts and url[:5].lower() != "data:":
            raise ApiError(
                422, "A picture is written as data:image/...;base64,...", param="image_url"
            )
        time = _time_tag(rest[-1]) if rest else None
        if time is not None:
            rest.pop()
        else:
            time = pictures[-1].time + 1.0 if pictures else 0.0
        if pictures and time <= pictures[-1].time:
            raise ApiError(422, "Pictures come in the order of their times.", param="messages")
        data = InlineVideo(long_texts.get(url, url), "picture", "image/jpeg")
        pictures.append(InlinePicture(time, data))
    if len(pictures) > MAX_PICTURES:
        raise ApiError(
            413, f"The request has {len(pictures)} pictures; at most {MAX_PICTURES} are read here."
        )
    if pictures and any(isinstance(part, VideoPart) for part in rest):
        raise ApiError(422, "Ask about a video or about pictures, not both.", param="messages")
    return rest, tuple(pictures)


def _time_tag(part: Part) -> float | None:
    """Seconds of a text that is nothing but a time, such as [01:02]; None for any other part."""
    match = _TIME.fullmatch(part.text) if isinstance(part, TextPart) else None
    if match is None:
        return None
    minutes, seconds = match.groups()
    return 60.0 * int(minutes) + float(seconds)


def _rounds(
    body: ChatBody, parts: list[list[Part]], long_texts: dict[str, LongText], max_letters: int
) -> tuple[Texts, ...]:
    """The texts of the rounds before the last message. A round is left out where a text is too
    long, or a message has no answer behind it."""
    rounds: list[Texts] = []
    texts: list[str] = []  # of the messages of the open round
    for message, row in zip(body.messages[:-1], parts[:-1], strict=True):
        if message.role not in ("user", "assistant"):
            continue
        texts = texts if message.role == "assistant" else []
        try:
            texts = [*texts, _text(row, long_texts, max_letters)]
        except ApiError:
            texts = []
        if len(texts) == 2 and all(map(_is_unicode, texts)):
            rounds.append((texts[0], texts[1]))
            texts = []
    return tuple(rounds)


def _instructions(
    body: ChatBody, parts: list[list[Part]], long_texts: dict[str, LongText], max_letters: int
) -> str:
    """The texts of all system messages. ApiError 400 where they are too long, or no Unicode."""
    texts = (
        _text(row, long_texts, max_letters)
        for message, row in zip(body.messages, parts, strict=True)
        if message.role in ("system", "developer")
    )
    joined = "\n".join(filter(None, texts))
    if len(joined) > max_letters:
        raise ApiError(
            400,
            f"The system messages have {len(joined)} letters; at most {max_letters} are read here.",
            param="messages",
        )
    if not _is_unicode(joined):
        raise ApiError(
            400, "A system message holds halves of characters (lone surrogates).", param="messages"
        )
    return joined


def _text(parts: list[Part], long_texts: dict[str, LongText], max_letters: int) -> str:
    """The text of a message. ApiError 400 when a part is too long."""
    joined = ""
    for part in parts:
        if not isinstance(part, TextPart):
            continue
        text = part.text
        if (long_text := long_texts.get(text)) is not None:
            if long_text.min_letters > max_letters:
                raise _too_long(f"more than {long_text.min_letters}", max_letters)
            text = long_text.text()
        joined += f"\n{text}"
    return joined.strip()


def _question(parts: list[Part], long_texts: dict[str, LongText], max_letters: int) -> str:
    """The text of the last message. ApiError 400 when it is empty, too long, or no Unicode."""
    question = _text(parts, long_texts, max_letters)
    if not question:
        raise ApiError(400, "The last message holds no question; add a text.", param="messages")
    if len(question) > max_letters:
        raise _too_long(str(len(question)), max_letters)
    if not _is_unicode(question):
        raise ApiError(
            400, "The question holds halves of characters (lone surrogates).", param="messages"
        )
    return question


def _check_unsupported(body: ChatBody) -> None:
    if body.tools:
        raise ApiError(400, "tools are not supported.", param="tools")
    if body.logprobs or body.top_logprobs:
        raise ApiError(
            400, "logprobs are not given here; leave logprobs and top_logprobs out.",
            param="logprobs",
        )  # fmt: skip


def _form(body: ChatBody, long_texts: dict[str, LongText]) -> str:
    """The JSON schema of response_format as text; "": the answer is text. ApiError 400 or 422 on
    what is none."""
    given = body.response_format or {}
    kind = given.get("type", "text" if not given else None)
    if kind == "text":
        return ""
    if kind == "json_object":
        return json.dumps({"type": "object"})
    if kind != "json_schema":
        raise ApiError(
            400,
            "response_format has the type text, json_object or json_schema.",
            param="response_format",
        )
    named = given.get("json_schema")
    schema = named.get("schema") if isinstance(named, dict) else None
    if not isinstance(schema, dict):
        raise _invalid_field("response_format", "json_schema has no schema, which is an object")
    try:
        text = json.dumps(schema, allow_nan=False)
        text.encode()
    except ValueError:
        raise _invalid_field("response_format", "the schema holds what JSON cannot") from None
    if len(text) > _SCHEMA_LETTERS or any(name in text for name in long_texts):
        raise ApiError(
            400,
            f"response_format: a schema has at most {_SCHEMA_LETTERS} letters here.",
            param="response_format",
        )
    return text


def _generation(body: ChatBody, long_texts: dict[str, LongText], max_tokens: int) -> Generation:
    """How the answer is to be written. ApiError 400 on more than max_tokens, 422 on stop texts that
    cannot be."""
    stops = [body.stop] if isinstance(body.stop, str) else body.stop or []
    stops = [stop for stop in stops if stop]
    if len(stops) > _MAX_STOPS or any(
        len(stop) > _STOP_LETTERS or stop in long_texts for stop in stops
    ):
        raise _invalid_field(
            "stop", f"at most {_MAX_STOPS} texts of at most {_STOP_LETTERS} letters are taken"
        )
    # the newer name counts where a client sends both
    most = body.max_completion_tokens or body.max_tokens
    if most is not None and most > max_tokens:
        name = "max_completion_tokens" if body.max_completion_tokens else "max_tokens"
        raise ApiError(
            400,
            f"{name} is {most}, and an answer has at most {max_tokens} tokens here.",
            param=name,
        )
    top_p = 1.0 if body.top_p is None else body.top_p
    form = _form(body, long_texts)
    return Generation(most, tuple(stops), body.temperature or 0.0, top_p, body.seed, form)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _warning(
    body: ChatBody,
    parts: list[list[Part]],
    videos: list[list[VideoPart]],
    abilities: Abilities,
) -> str:
    """A sentence for each thing of the request that has no effect."""
    roles = {message.role for message in body.messages}
    count = sum(map(len, videos))
    # a client that repeats its one video in every round is not warned
    several = any(len(row) > 1 for row in videos)
    several |= len({_video_name(part) for row in videos for part in row}) > 1
    names = list(dict.fromkeys(_ignored_names(body, parts)))
    listed = ", ".join(map(_printable, names[:_MAX_NAMES]))
    if len(names) > _MAX_NAMES:
        listed += f" and {len(names) - _MAX_NAMES} more"
    sentences = {
        "System messages are not read.": (
            bool(roles & {"system", "developer"}) and not abilities.instructions
        ),
        'Earlier rounds are used for follow-ups such as "and after that?", and not read by the '
        "model.": "assistant" in roles and not abilities.rounds,
        f"Only the last of {count} videos is read.": several,
        f"{listed} {'is' if len(names) == 1 else 'are'} not heeded.": bool(names),
    }
    return " ".join(text for text, is_so in sentences.items() if is_so)


def _ignored_names(body: ChatBody, parts: list[list[Part]]) -> Iterator[str]:
    """Names of fields that have no effect and ask for something."""
    yield from _extras(body)
    for message, row in zip(body.messages, parts, strict=True):
        if message.role != "user":
            continue
        yield from _extras(message)
        for part in row:
            yield from _extras(part)
            if isinstance(part, VideoUrlPart):
                yield from _extras(part.video_url)
            elif isinstance(part, ImagePart):
                yield from _extras(part.image_url)
            elif isinstance(part, FilePart):
                yield from _extras(part.file)


def _extras(fields: Fields) -> Iterable[str]:
    extra = fields.model_extra or {}
    return [name for name, value in extra.items() if value and value not in NEUTRAL.get(name, ())]


def _video_name(part: VideoPart) -> str:
    """What a request calls a video."""
    if isinstance(part, VideoUrlPart):
        return part.video_url.url
    return part.file.file_id or part.file.file_data or ""


def _video(
    videos: list[list[VideoPart]], long_texts: dict[str, LongText], bank_model: str
) -> VideoReference:
    parts = [part for row in videos for part in row]
    if not parts:
        raise ApiError(
            400,
            "No message holds a video; add a part such as "
            '{"type": "file", "file": {"file_id": "file-..."}}'
            + (f", or ask the whole bank with model={bank_model}." if bank_model else "."),
        )
    part = parts[-1]
    if isinstance(part, VideoUrlPart):
        url = part.video_url.url.strip()
        if url in long_texts or url[:5].lower() == "data:":
            return VideoReference(data=InlineVideo(long_texts.get(url, url)))
        return VideoReference(url=url)
    file = part.file
    if file.file_id is not None:
        return VideoReference(file_id=file.file_id)
    if file.file_data is not None:
        data = InlineVideo(long_texts.get(file.file_data, file.file_data))
        return VideoReference(data=data, filename=file.filename or "video")
    raise ApiError(422, "file: give file_id, or file_data as a data: URL.", param="file")


def _too_long(count: str, max_letters: int) -> ApiError:
    return ApiError(
        400,
        f"The question has {count} letters; at most {max_letters} are read here.",
        param="messages",
        code="question_too_long",
    )


def _invalid_field(where: str, why: str) -> ApiError:
    return ApiError(422, f"{where}: {why}.", code="invalid_field", param=where)


def _printable(text: str) -> str:
    """A client's text, shortened and escaped for a sentence."""
    return repr(text[:40])[1:-1] + ("..." if len(text) > 40 else "")
