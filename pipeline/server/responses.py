"""Builds OpenAI's response objects, with the moments that an answer cites, and sends videos.

Knows JSON and files; no routes.

Extensions: `citations`, `recalled` (what the model read of the first of them), `shown`, `warning`,
and `understood` (of a follow-up) beside the content of the message (in a stream: in the last
delta), and `seconds` of each stage beside the choices.
"""

import json
import os
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi.responses import FileResponse
from starlette.types import Message, Receive, Scope, Send

from encoders.schema import Frames
from pipeline.config.units import format_time
from pipeline.schema import CHANNEL_WORDS, PICTURE, Answer
from pipeline.server.answering import FollowUpAnswer, WholeBank
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

    def completion(self, answers: Sequence[Answer], usage: dict[str, int]) -> dict[str, Any]:
        """A chat.completion object with all answers to the request."""
        choices = []
        for index, answer in enumerate(answers):
            text = "\n\n".join(filter(None, [answer.text, self._in_text(answer)]))
            message = {"role": "assistant", "content": text, "refusal": None}
            choices.append(
                {
                    "index": index,
                    "message": message | self._extras(answer),
                    "logprobs": None,
                    "finish_reason": _finish(answer),
                }
            )
        return self._object("chat.completion", choices) | {
            "usage": usage,
            "seconds": _rounded(answers),
        }

    def first_chunk(self, index: int) -> str:
        """The beginning of an answer. index: of it among the answers."""
        return self._event({"role": "assistant", "content": ""}, index)

    def text_chunk(self, text: str, index: int) -> str:
        return self._event({"content": text}, index)

    def answer_end(self, answer: Answer, index: int) -> str:
        """The end of an answer: citations and finish reason."""
        line = self._in_text(answer)
        text = self._event({"content": f"\n\n{line}"}, index) if line else ""
        return text + self._event(self._extras(answer), index, _finish(answer))

    def end(self, usage: dict[str, int]) -> str:
        """The end of a stream, with token counts if requested."""
        counts = _data(self._object("chat.completion.chunk", []) | {"usage": usage})
        return (counts if self.request.usage else "") + "data: [DONE]\n\n"

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
        extras: dict[str, Any] = {
            "citations": citations,
            "recalled": [[round(a, 3), round(b, 3)] for a, b in answer.recalled],
            "shown": answer.shown,
            "channel": answer.channel,
            "confidence": answer.confidence,
        }
        if isinstance(answer, FollowUpAnswer):
            extras["understood"] = answer.understood
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

    def _event(self, delta: dict[str, Any], index: int, finish: str | None = None) -> str:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
        return _data(self._object("chat.completion.chunk", [choice]))

    def _object(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.request.model,
            "choices": choices,
        }


def usage(answers: Sequence[Answer], count_tokens: Callable[[str], int]) -> dict[str, int]:
    """Token counts of all passes of the model: as OpenAI counts, the prompt of several answers
    once. count_tokens: of a text."""
    counts = [_counts(answer, count_tokens) for answer in answers]
    prompt = max((read for read, _ in counts), default=0)
    text = sum(written for _, written in counts)
    return {"prompt_tokens": prompt, "completion_tokens": text, "total_tokens": prompt + text}


def _counts(answer: Answer, count_tokens: Callable[[str], int]) -> tuple[int, int]:
    """Tokens that were read and written for an answer."""
    if answer.usage is not None:  # a server behind this one has counted
        return answer.usage.prompt_tokens, answer.usage.answer_tokens
    calls = () if answer.trace is None else answer.trace.calls
    if not calls:  # pictures of the request, or words of the film
        return answer.visual_tokens + count_tokens(answer.question), count_tokens(answer.text)
    read = sum(call.visual_tokens + call.text_tokens for call in calls)
    return read, sum(call.answer_tokens for call in calls)


def _finish(answer: Answer) -> str:
    return "length" if answer.is_cut else "stop"


def error_event(body: dict[str, Any]) -> str:
    """An error after the stream has started."""
    return _data(body)


def heartbeat(share: float) -> str:
    """An SSE comment, ignored by clients, that keeps proxies from closing the connection."""
    return f": encoding {share:.0%}\n\n"


def _data(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data)}\n\n"


def _rounded(answers: Sequence[Answer]) -> dict[str, float]:
    """Seconds of each stage, of all answers."""
    stages = dict.fromkeys(stage for answer in answers for stage in answer.seconds)
    return {
        stage: round(sum(answer.seconds.get(stage, 0.0) for answer in answers), 4)
        for stage in stages
    }
