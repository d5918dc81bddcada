"""Reads a JSON body in bounded time and memory, whatever a client sends.

Knows JSON's strings and brackets; no request and no field. A scan over the bytes precedes parsing:
it counts what the parser would build, and leaves long strings (videos in base64) where they are.
Each step is short, so a thread that reads a body does not keep others from the interpreter.
"""

import json
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pipeline.server.errors import ApiError

MAX_DEPTH = 64  # levels of lists and objects
MAX_TOKENS = 50_000  # strings, brackets and commas: about 6,000 parts of a message
MAX_SHORT_BYTES = 4 << 20  # everything except long strings
LONG_BYTES = 64 << 10  # a longer string stays in the body
_MAX_QUOTES = 30_000  # quotation marks inside strings
_PIECE = 256 << 10  # bytes per step: a millisecond at most
_MAX_BACKSLASHES = 64 << 10  # in a row
_MAX_OTHER_ENCODING = 1 << 20
# a short string without escapes as a whole, else the quotation mark where it begins
_TOKEN = re.compile(rb'"[^"\\]{0,4096}+"|["\[\]{},]')
_OPEN, _CLOSE = frozenset([b"[", b"{"]), frozenset([b"]", b"}"])


@dataclass(frozen=True, slots=True, eq=False)
class LongText:
    """A string that was left in the body: the bytes between its quotation marks."""

    body: bytearray
    start: int
    end: int

    @property
    def min_letters(self) -> int:
        """It has at least so many letters: an escape takes up to 6 bytes."""
        return (self.end - self.start) // 6

    def text(self) -> str:
        """The string as a whole. ApiError 400 when it is no JSON."""
        try:
            text: str = json.loads(b'"' + self.body[self.start : self.end] + b'"')
        except ValueError:
            raise _invalid() from None
        return text

    def pieces(self) -> Iterator[bytes]:
        """The string in pieces, without JSON's escapes. For text without backslashes, as base64.

        ValueError when an escape is damaged.
        """
        position = self.start
        while position < self.end:
            piece = bytes(memoryview(self.body)[position : min(position + _PIECE, self.end)])
            if b"\\" in piece:
                # an escape is at most 6 bytes, and must not be cut
                cut = piece.rfind(b"\\", len(piece) - 6)
                if cut > 0 and position + len(piece) < self.end:
                    piece = piece[:cut]
            position += len(piece)
            yield json.loads(b'"%b"' % piece).encode() if b"\\" in piece else piece


@dataclass(frozen=True, slots=True)
class Document:
    """Parsed JSON. A string that is a key of `long_texts` stands for that text."""

    value: Any
    long_texts: dict[str, LongText]


def parse(body: bytearray) -> Document:
    """Parse a body.

    ApiError 400 when it is not JSON or nested too deep, 413 when it has too many values.
    """
    body = _as_utf8(body)
    short_json, long_texts = _Scan(body).run()
    try:
        return Document(json.loads(short_json), long_texts)
    except (ValueError, RecursionError):
        raise _invalid() from None


class _Scan:
    """One pass over a body: counts tokens, and replaces long strings by short unique names."""

    def __init__(self, body: bytearray) -> None:
        self._body = body
        self._pieces: list[memoryview | bytes] = []  # of the JSON without long strings
        self._copied = 0  # bytes of the body that `_pieces` covers
        self._skipped = 0  # bytes of long strings
        self._tokens = self._quotes = self._depth = 0
        self._nonce = secrets.token_hex(8)  # no client can write the name of a long string
        self._long_texts: dict[str, LongText] = {}

    def run(self) -> tuple[bytes, dict[str, LongText]]:
        """The JSON without long strings, and these by the name that replaces them."""
        body, position = self._body, 0
        while position < len(body):
            position = self._step(position)
            if position - self._skipped > MAX_SHORT_BYTES:
                raise ApiError(
                    413,
                    f"The request holds more than {MAX_SHORT_BYTES / 1e6:.3g} MB beside its "
                    "videos.",
                )
        return b"".join([*self._pieces, bytes(body[self._copied :])]), self._long_texts

    def _step(self, position: int) -> int:
        """Count tokens from `position` on, up to the next long string at most; where to go on."""
        end = min(len(self._body), position + _PIECE)
        tokens, depth = self._tokens, self._depth
        for match in _TOKEN.finditer(self._body, position, end):
            token = match[0]
            tokens += 1
            if tokens > MAX_TOKENS:
                raise _too_many()
            if token in _OPEN:
                depth += 1
                if depth > MAX_DEPTH:
                    raise _invalid()
            elif token in _CLOSE:
                depth -= 1
            elif token == b'"':  # of a string that is long, or has escapes
                self._tokens, self._depth = tokens, depth
                return self._string(match.end())
        self._tokens, self._depth = tokens, depth
        return end

    def _string(self, start: int) -> int:
        """The position after the string that begins at `start`, after its quotation mark."""
        body, position = self._body, start
        while True:
            end = body.find(b'"', position, position + _PIECE)
            if end < 0:
                position += _PIECE
                if position >= len(body):
                    raise _invalid()
                continue
            if not _is_escaped(body, start, end):
                break
            position = end + 1
            self._quotes += 1
            if self._quotes > _MAX_QUOTES:
                raise _too_many()
        if end - start > LONG_BYTES:
            self._leave(start, end)
        return end + 1

    def _leave(self, start: int, end: int) -> None:
        if self._body[end + 1 : end + 64].lstrip().startswith(b":"):
            raise ApiError(400, f"A name in the request has more than {LONG_BYTES} letters.")
        name = f"{self._nonce}:{len(self._long_texts)}"
        self._long_texts[name] = LongText(self._body, start, end)
        self._pieces += [bytes(self._body[self._copied : start]), name.encode()]
        self._copied = end
        self._skipped += end - start


def _is_escaped(body: bytearray, start: int, quote: int) -> bool:
    """Whether an odd number of backslashes precedes a quotation mark of a string.

    ApiError 413 when there are absurdly many.
    """
    for window in (64, _MAX_BACKSLASHES):
        before = body[max(start, quote - window) : quote]
        backslashes = len(before) - len(before.rstrip(b"\\"))
        if backslashes < window:
            return backslashes % 2 == 1
    raise _too_many()


def _as_utf8(body: bytearray) -> bytearray:
    """JSON in UTF-16 or UTF-32, which Python's parser takes as well, if it is short."""
    encoding = json.detect_encoding(bytes(body[:4]))
    if encoding in ("utf-8", "utf-8-sig"):
        return body
    try:
        return bytearray(body[:_MAX_OTHER_ENCODING].decode(encoding).encode())
    except ValueError:
        raise _invalid() from None


def _too_many() -> ApiError:
    return ApiError(
        413, f"The request has more parts than are read here (about {MAX_TOKENS // 8:,})."
    )


def _invalid() -> ApiError:
    return ApiError(
        400,
        f"The body is not valid JSON, or it is nested deeper than {MAX_DEPTH} levels.",
        code="invalid_json",
    )
