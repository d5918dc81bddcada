"""Evidence and a question -> the messages of a chat request, within the limits of a server.

Frames and lines of text stand in time order, each behind its time. Where there are several videos,
they stand video by video, those of each behind its name. The question comes last. Frames that do
not fit are left out, those that rank lowest first. Knows no server and no decoder.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from encoders.text.lines import TextLine
from memory.schema import Evidence, VideoTitle
from pipeline.answer.text_evidence import prompt_line
from pipeline.config.units import format_time
from pipeline.endpoint.forms import AnswerForm

_OPENING = (
    "These are parts of one video in time order: pictures, and lines of what is said or read.\n"
)
_OPENING_OF_SEVERAL = (
    "These are parts of several videos, each behind its name and in time order: pictures, and "
    "lines of what is said or read.\n"
)
_BYTES_A_TOKEN = 3  # of text, so that an estimate is rather too high
_ROOM_TOKENS = 64  # for what a chat template adds


@dataclass(frozen=True, slots=True)
class Limits:
    """What a request may hold. None: no limit is known."""

    images: int
    nbytes: int  # of all pictures, in base64
    context: int | None  # tokens, the answer included
    image_tokens: int  # of one picture, estimated
    answer_tokens: int


@dataclass(frozen=True, slots=True)
class Frame:
    """A recalled frame, and its picture as a data URI (None: there is none)."""

    number: int  # in the evidence
    time: float  # seconds
    uri: str | None
    video_id: str


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """What is sent, and what its numbers mean."""

    content: str | list[dict[str, Any]]
    sources: Mapping[
        int, tuple[int, ...]
    ]  # number of a part -> numbers of its frames in the evidence
    frames: tuple[int, ...]  # numbers of the frames whose pictures are sent, rising
    beside_lines: tuple[int, ...]  # numbers of frames that are shown during its lines
    left_out: int  # frames with a picture that did not fit


def count_tokens(text: str) -> int:
    """Tokens of a text, estimated: the tokenizer is with the model."""
    return -(-len(text.encode()) // _BYTES_A_TOKEN)


def chat_prompt(
    evidence: Evidence, frames: Sequence[Frame], form: AnswerForm, limits: Limits
) -> ChatPrompt:
    """The content of the one message that is sent."""
    titles = _titles(evidence)
    videos, opening = list(titles), _OPENING_OF_SEVERAL if len(titles) > 1 else _OPENING
    question = form.instruct(evidence.question.prompt, len(videos))
    texts = [*titles.values(), *(prompt_line(line) for line in evidence.lines)]
    with_picture = [frame for frame in frames if frame.uri is not None]
    room = _room(limits, sum(map(count_tokens, (*texts, question, opening))))
    chosen = _best(evidence, with_picture, room, limits.nbytes)
    parts = sorted(
        [(videos.index(frame.video_id), frame.time, 0, frame) for frame in chosen]
        + [(videos.index(line.video_id), line.start, 1, line) for line in evidence.lines],
        key=lambda part: part[:3],
    )
    content: list[dict[str, Any]] = [_text(opening)] if parts and form.numbers else []
    sources: dict[int, tuple[int, ...]] = {}
    beside: dict[int, None] = {}
    titled = -1  # the number of the video whose parts are being written
    for number, (video, _, _, part) in enumerate(parts, 1):
        mark = f"{number}. " if form.numbers else ""
        if video != titled:
            titled, title = video, titles[part.video_id]
            content += [_text(title)] if title else []
        if isinstance(part, Frame):
            content.append(_text(f"{mark}{time_tag(part.time)}"))
            content.append({"type": "image_url", "image_url": {"url": part.uri}})
            sources[number] = (part.number,)
        else:
            content.append(_text(mark + prompt_line(part)))
            sources[number] = _during(part, frames, evidence.interval)
            beside |= dict.fromkeys(sources[number])
    content.append(_text(question))
    numbers = tuple(sorted(frame.number for frame in chosen))
    left_out = len(with_picture) - len(chosen)
    # some servers of text models take a text alone
    plain = content if numbers else "".join(part["text"] for part in content)
    return ChatPrompt(plain, sources, numbers, tuple(beside), left_out)


def time_tag(seconds: float) -> str:
    """ "[01:02]", or "[01:02.500]" between two seconds."""
    thousandths = round(seconds * 1000)
    fraction = f".{thousandths % 1000:03d}" if thousandths % 1000 else ""
    return f"[{format_time(thousandths / 1000, hours='never')}{fraction}]"


def _titles(evidence: Evidence) -> dict[str, str]:
    """The text before the parts of each video of the question, in order; "" for a single one."""
    videos = evidence.question.videos
    if len(videos) == 1:
        return {videos[0]: ""}
    numbered = {each: VideoTitle(str(number)) for number, each in enumerate(videos, 1)}
    return {each: evidence.titles.get(each, title).heading for each, title in numbered.items()}


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _room(limits: Limits, text_tokens: int) -> int:
    """How many pictures the context and the limit of pictures leave room for."""
    if limits.context is None:
        return limits.images
    free = limits.context - limits.answer_tokens - text_tokens - _ROOM_TOKENS
    return max(0, min(limits.images, free // max(limits.image_tokens, 1)))


def _best(evidence: Evidence, frames: Sequence[Frame], most: int, nbytes: int) -> list[Frame]:
    """The newest frames, then those that rank highest, as many as fit."""
    by_number = {frame.number: frame for frame in frames}
    newest = sorted(by_number, reverse=True)[: evidence.recent]
    ranked = [*newest, *evidence.ranking, *sorted(by_number)]
    chosen: dict[int, Frame] = {}
    for number in ranked:
        frame = by_number.get(number)
        if frame is None or number in chosen or len(chosen) >= most:
            continue
        size = len(frame.uri or "")
        if size <= nbytes:
            chosen[number], nbytes = frame, nbytes - size
    return list(chosen.values())


def _during(line: TextLine, frames: Sequence[Frame], interval: float) -> tuple[int, ...]:
    """Numbers of the recalled frames that are shown during a line."""
    return tuple(
        frame.number
        for frame in frames
        if frame.video_id == line.video_id
        and frame.time < max(line.end, line.start + 1e-3)
        and frame.time + interval > line.start
    )
