"""lmms-eval's chat messages and generation settings -> one question about one video.

Refuses what Reelbank cannot do before anything is encoded: images, sounds, several videos,
sampling. Knows neither lmms-eval nor a model.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from encoders.errors import UserError

Message = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Clip:
    """A file, or a part of it, that is encoded once."""

    path: str
    start: float = 0.0  # seconds of the file
    end: float | None = None  # None = its end


@dataclass(frozen=True, slots=True)
class VideoRequest:
    """One question about one clip."""

    clip: Clip
    question: str
    max_new_tokens: int | None = None  # None = what the reader is set to
    until: tuple[str, ...] = ()  # the answer ends before the first of these


def request_of(
    where: str, messages: Iterable[Message], settings: Mapping[str, Any]
) -> VideoRequest:
    """The request of one document. UserError on what cannot be asked.

    where: task and number of the document, for errors. messages: as `doc_to_messages` returns them;
    their texts are joined by line breaks. settings: generation_kwargs.
    """
    texts, clips = [], []
    for message in messages:
        content = message["content"]
        for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            if part["type"] == "text":
                texts.append(str(part["text"]))
            elif part["type"] == "video":
                clips.append(_clip(where, part))
            else:
                raise UserError(
                    f"{where} shows something of type {part['type']}; Reelbank reads one video and "
                    "a text."
                )
    if len(clips) != 1:
        raise UserError(
            f"{where} shows {len(clips)} videos; Reelbank answers questions about one video."
        )
    if (
        settings.get("do_sample")
        or (settings.get("temperature") or 0) > 0
        or (settings.get("num_beams") or 1) > 1
    ):
        raise UserError(
            f"{where} is to be sampled or searched ({_sampling_text(settings)}), and Reelbank "
            "takes the likeliest token; "
            "say --gen_kwargs temperature=0,do_sample=false,num_beams=1."
        )
    longest = settings.get("max_new_tokens")
    if longest is not None and longest < 1:
        raise UserError(
            f"{where} has max_new_tokens={longest}, which gives no room for an answer; use 1 or "
            "more."
        )
    until = settings.get("until") or ()
    return VideoRequest(
        clips[0], "\n".join(texts), longest, (until,) if isinstance(until, str) else tuple(until)
    )


def groups(requests: Sequence[VideoRequest]) -> dict[Clip, list[int]]:
    """The numbers of the requests about each clip, clips in the order of their first request."""
    by_clip: dict[Clip, list[int]] = {}
    for number, one in enumerate(requests):
        by_clip.setdefault(one.clip, []).append(number)
    return by_clip


def cut(text: str, until: Sequence[str]) -> str:
    """The text before the first stop string."""
    for stop in until:
        text = text.split(stop, 1)[0] if stop else text
    return text.strip()


def _clip(where: str, part: Mapping[str, Any]) -> Clip:
    """lmms-eval gives a part of a file in two ways: beside the path, or with it in a dict."""
    url, start, end = part["url"], part.get("start_time"), part.get("end_time")
    if isinstance(url, Mapping):
        start, end = url.get("video_start", start), url.get("video_end", end)
        url = url.get("url") or url.get("path")
    if not isinstance(url, str):
        raise UserError(
            f"{where} holds a video as {type(url).__name__}; Reelbank reads files, so give its "
            "path."
        )
    path = os.path.realpath(url.removeprefix("file://"))  # several names of one file are one clip
    return Clip(path, float(start or 0.0), None if end is None else float(end))


def _sampling_text(settings: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name}={settings[name]}"
        for name in ("do_sample", "temperature", "num_beams")
        if name in settings
    )
