"""A response of OpenAI's Responses API: one message with the answer, complete or as typed events.

Extensions: `citations`, `shown`, `channel`, `confidence` and `warning` beside the content of the
message, as in a chat.
"""

import itertools
import json
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.schema import Answer
from pipeline.server.responses import ChatResponse


@dataclass(frozen=True)
class TextResponse(ChatResponse):
    """The response to one request. A stream calls `first_chunk`, `text_chunk`, `answer_end` and
    `end`, in this order."""

    id: str = field(default_factory=lambda: f"resp_{secrets.token_hex(12)}")
    item_id: str = field(default_factory=lambda: f"msg_{secrets.token_hex(12)}")
    numbers: Iterator[int] = field(default_factory=itertools.count)  # of events
    answers: list[Answer] = field(default_factory=list)  # that the stream has told

    def completion(self, answers: Sequence[Answer], usage: dict[str, int]) -> dict[str, Any]:
        """A response object."""
        (answer,) = answers
        return self._response("incomplete" if answer.is_cut else "completed", answer, usage)

    def first_chunk(self, index: int) -> str:
        begun = self._response("in_progress")
        item = {"id": self.item_id, "type": "message", "role": "assistant", "content": []}
        return (
            self._typed("response.created", response=begun)
            + self._typed("response.in_progress", response=begun)
            + self._typed(
                "response.output_item.added",
                output_index=index,
                item=item | {"status": "in_progress"},
            )
            + self._of_part("response.content_part.added", part=_text_part(""))
        )

    def text_chunk(self, text: str, index: int) -> str:
        return self._of_part("response.output_text.delta", delta=text, logprobs=[])

    def answer_end(self, answer: Answer, index: int) -> str:
        self.answers.append(answer)
        line, text = self._in_text(answer), self._whole_text(answer)
        return (
            (self.text_chunk(f"\n\n{line}", index) if line else "")
            + self._of_part("response.output_text.done", text=text, logprobs=[])
            + self._of_part("response.content_part.done", part=_text_part(text))
            + self._typed(
                "response.output_item.done", output_index=index, item=self._message(answer)
            )
        )

    def end(self, usage: dict[str, int]) -> str:
        response = self.completion(self.answers, usage)
        return self._typed(f"response.{response['status']}", response=response)

    def _response(
        self, status: str, answer: Answer | None = None, usage: dict[str, int] | None = None
    ) -> dict[str, Any]:
        how = self.request.generation
        cut = {"reason": "max_output_tokens"} if status == "incomplete" else None
        counts = None if usage is None else {
            "input_tokens": usage["prompt_tokens"],
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": usage["completion_tokens"],
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage["total_tokens"],
        }  # fmt: skip
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "status": status,
            "error": None,
            "incomplete_details": cut,
            "instructions": self.request.instructions or None,
            "max_output_tokens": how.max_tokens,
            "model": self.request.model,
            "output": [] if answer is None else [self._message(answer)],
            "parallel_tool_calls": False,
            "previous_response_id": None,
            "store": False,
            "temperature": how.temperature,
            "text": {"format": _form(how.form)},
            "tool_choice": "none",
            "tools": [],
            "top_p": how.top_p,
            "usage": counts,
        }

    def _message(self, answer: Answer) -> dict[str, Any]:
        message = {
            "id": self.item_id,
            "type": "message",
            "status": "incomplete" if answer.is_cut else "completed",
            "role": "assistant",
            "content": [_text_part(self._whole_text(answer))],
        }
        return message | self._extras(answer)

    def _whole_text(self, answer: Answer) -> str:
        return "\n\n".join(filter(None, [answer.text, self._in_text(answer)]))

    def _of_part(self, kind: str, **values: Any) -> str:
        return self._typed(kind, item_id=self.item_id, output_index=0, content_index=0, **values)

    def _typed(self, kind: str, **values: Any) -> str:
        data = {"type": kind, "sequence_number": next(self.numbers)} | values
        return f"event: {kind}\ndata: {json.dumps(data)}\n\n"


def _text_part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _form(schema: str) -> dict[str, Any]:
    if not schema:
        return {"type": "text"}
    return {"type": "json_schema", "name": "answer", "schema": json.loads(schema), "strict": True}
