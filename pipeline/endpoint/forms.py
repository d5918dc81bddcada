"""The form in which a model is asked to answer, so that its answer says what it rests on.

- line:  the answer, and a last line "Sources: 2, 5"; every model can write it, and it streams
- json:  {"answer": "...", "sources": [2, 5]}, which the server enforces by a schema
- plain: the answer alone, and no instruction: what a model that was trained on bare questions reads

Sources are the numbers of the parts of the request. Knows no server and no frame.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from encoders.errors import UserError
from pipeline.runtime.cancel import Emit

_ASK = (
    "Answer the question from these numbered parts of {whole} alone. If they do not show it, "
    "answer: not in the video."
)
_LINE = (
    "Behind the answer, write one last line with the numbers of the parts that it rests on, such "
    'as "Sources: 2, 5", or "Sources: none".'
)
_JSON = (
    'Write nothing but JSON: {"answer": "...", "sources": [2, 5]}, where sources are the numbers '
    "of the parts that the answer rests on."
)
_SCHEMA = {
    "type": "object",
    "properties": {
        "answer": {"type": "string"},
        "sources": {"type": "array", "items": {"type": "integer"}},
    },
    "required": ["answer", "sources"],
    "additionalProperties": False,
}
_SOURCES = re.compile(r"[\s*_`(\[-]*\bsources?\b[*_`]*\s*:\s*(?P<rest>[^\n]*)\s*\Z", re.IGNORECASE)
# the end of a text that may yet become the line of sources
_BEGINS = re.compile(
    r"[\s*_`(\[-]*(\bsources?\b[*_`]*(\s*:[^\n]*)?|\bs(o(u(r(ce?)?)?)?)?)?\s*\Z", re.IGNORECASE
)
_HALF_ESCAPE = re.compile(r"(\\u[dD][89abAB][0-9a-fA-F]{2})?(\\u[0-9a-fA-F]{0,3})?\Z")
_THOUGHT = re.compile(r"\A\s*<think>.*?</think>\s*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Answered:
    """What a model wrote, taken apart. sources: None where it named none in the form asked for."""

    text: str
    sources: tuple[int, ...] | None


class AnswerForm(Protocol):
    """How an answer is asked for, and read."""

    numbers: bool  # whether the parts of a request have numbers

    def instruct(self, question: str, videos: int = 1) -> str:
        """The end of a prompt. videos: how many the question is about."""
        ...

    def fields(self) -> Mapping[str, Any]:
        """What the form adds to a request."""
        ...

    def visible(self, written: str) -> str:
        """Of a text that is not complete: the part of the answer that is certain by now."""
        ...

    def parse(self, written: str) -> Answered:
        """The complete text, taken apart."""
        ...


class PlainForm:
    """The bare question, and whatever the model says."""

    numbers = False

    def instruct(self, question: str, videos: int = 1) -> str:
        return question

    def fields(self) -> Mapping[str, Any]:
        return {}

    def visible(self, written: str) -> str:
        return _thoughtless(written).rstrip()

    def parse(self, written: str) -> Answered:
        return Answered(_thoughtless(written).strip(), None)


class LineForm(PlainForm):
    """The sources in a last line."""

    numbers = True

    def instruct(self, question: str, videos: int = 1) -> str:
        return f"{_ask(videos)} {_LINE}\n\n{question}"

    def visible(self, written: str) -> str:
        text = _thoughtless(written)
        end = _BEGINS.search(text)
        return text[: end.start()] if end else text

    def parse(self, written: str) -> Answered:
        text = _thoughtless(written).strip()
        match = _SOURCES.search(text)
        if match is None:
            return Answered(text, None)
        numbers = tuple(int(number) for number in re.findall(r"\d{1,6}", match["rest"]))
        return Answered(text[: match.start()].strip(), numbers)


class JsonForm(PlainForm):
    """A JSON object. A server that heeds no schema gets the same as an instruction."""

    numbers = True

    def instruct(self, question: str, videos: int = 1) -> str:
        return f"{_ask(videos)} {_JSON}\n\n{question}"

    def fields(self) -> Mapping[str, Any]:
        schema = {"name": "answer", "strict": True, "schema": _SCHEMA}
        return {"response_format": {"type": "json_schema", "json_schema": schema}}

    def visible(self, written: str) -> str:
        match = re.search(r'"answer"\s*:\s*"((?:[^"\\]|\\.)*)', _thoughtless(written), re.DOTALL)
        text = match[1] if match else ""
        # half of an escape, or of a pair of them, waits for the rest
        text = _HALF_ESCAPE.sub("", text, count=1)
        return _unescaped(text).rstrip()

    def parse(self, written: str) -> Answered:
        text = _thoughtless(written).strip()
        begin, end = text.find("{"), text.rfind("}")
        try:
            value = json.loads(text[begin : end + 1], strict=False)
            answer, sources = value["answer"], value.get("sources")
        except (ValueError, KeyError, TypeError, AttributeError):
            # broken off, or not the form: what streamed of it is the answer
            return Answered(self.visible(written) if begin >= 0 else text, None)
        numbers = (
            tuple(int(one) for one in sources if isinstance(one, int) and one < 10**6)
            if isinstance(sources, list)
            else None
        )
        return Answered(str(answer).strip(), numbers)


FORMS: dict[str, type[PlainForm]] = {"line": LineForm, "json": JsonForm, "plain": PlainForm}


def answer_form(name: str) -> AnswerForm:
    """The form of this name. UserError on another name."""
    if name not in FORMS:
        raise UserError(f"backbone.answer_form={name} is not known; use one of {', '.join(FORMS)}")
    return FORMS[name]()


class Forwarding:
    """Forwards of a stream what belongs to the answer: `add` every piece."""

    def __init__(self, form: AnswerForm, emit: Emit) -> None:
        self._form, self._emit = form, emit
        self._written, self._shown = "", ""

    def add(self, piece: str) -> None:
        """The next piece of what the model writes."""
        self._written += piece
        self._show(self._form.visible(self._written).lstrip())

    def finish(self, text: str) -> None:
        """Forward the rest of the complete answer."""
        self._show(text)

    def _show(self, text: str) -> None:
        if text.startswith(self._shown) and text != self._shown:
            self._emit(text[len(self._shown) :])
            self._shown = text


def _ask(videos: int) -> str:
    return _ASK.format(whole="a video" if videos == 1 else "these videos")


def _thoughtless(written: str) -> str:
    """Without the thought that some servers leave before the answer; "" while it goes on."""
    if not written.lstrip().startswith("<think>"):
        return "" if "<think>".startswith(written.strip()) and written.strip() else written
    return _THOUGHT.sub("", written, count=1) if "</think>" in written else ""


def _unescaped(text: str) -> str:
    try:
        return str(json.loads(f'"{text}"', strict=False))
    except ValueError:
        return ""
