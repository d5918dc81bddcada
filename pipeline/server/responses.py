"""Builds OpenAI's response objects, with the moments that an answer cites, and sends videos.

Knows JSON and files; no routes.

Extensions: `citations`, `shown`, and `warning` beside the content of the message (in a stream: in
the last delta), and `seconds` of each stage beside the choices.
"""

import json
import os
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi.responses import FileResponse
from starlette.types import Message, Receive, Scope, Send

from encoders.schema import Frames
from pipeline.config.units import format_time
from pipeline.schema import CHANNEL_WORDS, PICTURE, Answer
from pipeline.server.answering import WholeBank
from pipeline.server.chat_request import ChatRequest
from pipeline.server.errors import ApiError
from pipeline.server.files import StoredFile


class VideoResponse(FileResponse):
    """The bytes of a file, seekable. ApiError 404 when it is deleted before the first byte."""

    def __init__(self, file: StoredFile, headers: Mapping[str, str] | None = None) -> None:
        headers = headers or {"Cache-Control": "private, max-age=3600"}
        headers = {"X-Content-Type-Options": "nosniff", **headers}
        super().__init__(file.path, media_type=file.media_type, headers=headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start: Message | None = None  # kept back until the file is open

        async def send_late(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                start = message
                return
            if start is not None:
                await send(start)
                start = None
            await send(message)

        try:
            await super().__call__(scope, receive, send_late)
        except (FileNotFoundError, RuntimeError) as error:
            # the base class turns a missing file into a RuntimeError
            if os.path.exists(self.path):
                raise
            raise ApiError(404, "The file has been deleted.", code="file_not_found") from error


def file_object(file: StoredFile, encoded: bool, share: float | None) -> dict[str, Any]:
    """A file in OpenAI's format. share: encoded share, 0..1, while encoding runs."""
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.nbytes,
        "created_at": file.created,
        "filename": file.filename,
        "purpose": file.purpose,
        "status": "processed" if encoded else "uploaded",
        "duration": round(file.duration, 3),
        "encoded": 1.0 if encoded else share or 0.0,
    }


def model_object(name: str, created: int) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": created, "owned_by": "reelbank"}


def citation_line(answer: Answer, bank: WholeBank | None = None) -> str:
    """ "Seen at 00:31-00:33, 01:10-01:12.", or "Said at"; "" when nothing is cited.

    bank: names the video of each span, as in "Seen in a.mp4 at 00:31-00:33."
    """
    word = CHANNEL_WORDS[answer.channel or PICTURE].capitalize()
    where = [
        ("" if bank is None else f"in {bank[video_id].filename} ") + f"at {_spans(spans)}"
        for video_id, spans in _cited(answer)
    ]
    return f"{word} {'; '.join(where)}." if where else ""


def _spans(spans: Sequence[tuple[float, float]]) -> str:
    return ", ".join(f"{format_time(a)}-{format_time(b)}" for a, b in spans)


def _cited(answer: Answer) -> list[tuple[str, tuple[tuple[float, float], ...]]]:
    """The cited spans by video: first of the one that the answer rests on most."""
    cited = {answer.video_id: answer.spans} | {each.video_id: each.spans for each in answer.videos}
    return [(video_id, spans) for video_id, spans in cited.items() if spans]


@dataclass(frozen=True)
class ChatResponse:
    """The response to one request, complete or as a stream of chunks."""

    request: ChatRequest
    subject: StoredFile | Frames | WholeBank
    id: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))

    def completion(self, answer: Answer, usage: dict[str, int]) -> dict[str, Any]:
        """A chat.completion object."""
        text = "\n\n".join(filter(None, [answer.text, self._in_text(answer)]))
        message = {"role": "assistant", "content": text, "refusal": None} | self._extras(answer)
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
        return self._object("chat.completion", [choice]) | {
            "usage": usage,
            "seconds": _rounded(answer),
        }

    def first_chunk(self) -> str:
        return self._event({"role": "assistant", "content": ""})

    def text_chunk(self, text: str) -> str:
        return self._event({"content": text})

    def last_chunks(self, answer: Answer, usage: dict[str, int]) -> str:
        """The end of a stream: citations, finish reason, and token counts if requested."""
        line = self._in_text(answer)
        events = [self._event({"content": f"\n\n{line}"})] if line else []
        events.append(self._event(self._extras(answer), "stop"))
        if self.request.usage:
            events.append(_data(self._object("chat.completion.chunk", []) | {"usage": usage}))
        return "".join([*events, "data: [DONE]\n\n"])

    def _in_text(self, answer: Answer) -> str:
        if not self.request.cite_in_text:
            return ""
        return citation_line(answer, self._bank)

    @property
    def _bank(self) -> WholeBank | None:
        """The videos of a question about the whole bank; None for one about a video or pictures."""
        return None if isinstance(self.subject, StoredFile | Frames) else self.subject

    def _extras(self, answer: Answer) -> dict[str, Any]:
        citations = [
            self._file(video_id) | {"start": start, "end": end}
            for video_id, spans in _cited(answer)
            for start, end in spans
        ]
        warning = " ".join(filter(None, [self.request.warning, answer.warning]))
        extras = {
            "citations": citations,
            "shown": answer.shown,
            "channel": answer.channel,
            "confidence": answer.confidence,
        }
        return extras | ({"warning": warning} if warning else {})

    def _file(self, video_id: str) -> dict[str, Any]:
        """What names the file of a citation; nothing for pictures of the request."""
        if isinstance(self.subject, StoredFile):
            return {"file_id": self.subject.id}
        if self._bank is None:
            return {}
        video = self._bank[video_id]
        file = {"file_id": video.file_id} if video.file_id else {}
        return file | {"filename": video.filename, "video_id": video_id}

    def _event(self, delta: dict[str, Any], finish: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return _data(self._object("chat.completion.chunk", [choice]))

    def _object(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.request.model,
            "choices": choices,
        }


def usage(answer: Answer, question: int, text: int) -> dict[str, int]:
    """Token counts. question, text: tokens of the question and of the answer."""
    if answer.usage is not None:  # a server behind this one has counted
        prompt, text = answer.usage.prompt_tokens, answer.usage.answer_tokens
    else:
        prompt = answer.visual_tokens + question
    return {"prompt_tokens": prompt, "completion_tokens": text, "total_tokens": prompt + text}


def error_event(body: dict[str, Any]) -> str:
    """An error after the stream has started."""
    return _data(body)


def heartbeat(share: float) -> str:
    """An SSE comment, ignored by clients, that keeps proxies from closing the connection."""
    return f": encoding {share:.0%}\n\n"


def _data(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data)}\n\n"


def _rounded(answer: Answer) -> dict[str, float]:
    return {stage: round(seconds, 4) for stage, seconds in answer.seconds.items()}
