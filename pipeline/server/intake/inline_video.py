"""A video that a request carries as a data: URL, decoded in pieces.

Knows base64 as browsers read it (line breaks are skipped, padding is optional, URL-safe letters are
taken); no JSON and no container.
"""

import binascii
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from urllib.parse import unquote_to_bytes

from pipeline.server.errors import ApiError
from pipeline.server.intake.bounded_json import LongText

# The media type may hold a comma (codecs=vp9,opus), so the head ends at ;base64, and no earlier.
_HEAD = re.compile(rb"\s*data:[^\x00-\x08]*?;\s*base64\s*,", re.IGNORECASE)
_HEAD_BYTES = 1024
_WHITESPACE = b" \t\r\n\f"
_STANDARD = bytes.maketrans(b"-_", b"+/")


@dataclass(frozen=True, slots=True, eq=False)
class InlineVideo:
    """A data: URL with a video, or with a picture."""

    url: str | LongText
    what: str = "video"
    example: str = "video/mp4"

    def pieces(self) -> Iterator[bytes]:
        """The bytes of the video. ApiError 400 when the URL or its base64 is damaged."""
        try:
            pieces = self._pieces()
            first = next(pieces, b"")
            head = _HEAD.match(first[:_HEAD_BYTES])
            if head is None:
                raise ApiError(
                    400,
                    f"A {self.what} in the request is written as data:{self.example};base64,....",
                    code="invalid_base64",
                )
            yield from _decode(chain([first[head.end() :]], pieces), self.what)
        except ValueError:  # binascii.Error is one
            raise ApiError(
                400, f"The base64 of the {self.what} is damaged.", code="invalid_base64"
            ) from None

    def _pieces(self) -> Iterator[bytes]:
        return iter([self.url.encode()]) if isinstance(self.url, str) else self.url.pieces()


def _decode(pieces: Iterable[bytes], what: str) -> Iterator[bytes]:
    """The bytes that base64 stands for. ValueError when it is damaged, ApiError when empty."""
    rest, count, ended = b"", 0, False
    for piece in _unquoted(pieces):
        text = rest + piece.translate(_STANDARD, _WHITESPACE)
        whole = len(text) - len(text) % 4
        if ended and text:
            raise ValueError("text after the padding")
        rest, text = text[whole:], text[:whole]
        ended = text.endswith(b"=")
        if text:
            count += whole
            yield binascii.a2b_base64(text, strict_mode=True)
    if rest:
        if ended or len(rest) == 1:
            raise ValueError("text without its padding")
        count += len(rest)
        yield binascii.a2b_base64(rest.rstrip(b"=") + b"=" * (4 - len(rest)), strict_mode=True)
    if not count:
        raise ApiError(400, f"The {what} in the request is empty.", code="invalid_base64")


def _unquoted(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Pieces without percent signs: a URL may write + as %2B, and a line break as %0A."""
    rest = b""
    for piece in pieces:
        text = rest + piece
        cut = text.rfind(b"%", max(0, len(text) - 2))
        rest, text = (text[cut:], text[:cut]) if cut >= 0 else (b"", text)
        yield unquote_to_bytes(text) if b"%" in text else text
    if rest:
        yield unquote_to_bytes(rest)
