"""A JSON body is read like json.loads reads it, or refused early: in time and memory.

Covers: equality over random documents, long strings that stay in the body, and the bodies that
stopped a server for up to 49 seconds.
"""

import json
import random
import time
import tracemalloc
from contextlib import suppress
from typing import Any

import pytest

from pipeline.server.errors import ApiError
from pipeline.server.intake import bounded_json

LETTERS = ["a", '"', "\\", "\n", "é", "😀", "/", "[", "}", ",", "\u2028", "\x7f"]


def restored(document: bounded_json.Document) -> Any:
    """The value with its long strings in their places."""

    def walk(value: Any) -> Any:
        if isinstance(value, str) and value in document.long_texts:
            return document.long_texts[value].text()
        if isinstance(value, list):
            return [walk(item) for item in value]
        if isinstance(value, dict):
            return {name: walk(item) for name, item in value.items()}
        return value

    return walk(document.value)


def random_value(chance: random.Random, depth: int = 0) -> Any:
    kind = chance.randrange(8 if depth < 5 else 5)
    if kind < 3:
        text = "".join(chance.choices(LETTERS, k=chance.choice([0, 1, 5, 40, 300])))
        return text
    if kind < 5:
        return chance.choice([None, True, False, 0, -1.5e10, 12345678901234567890])
    count = chance.randrange(5)
    if kind == 5:
        return {
            f"{i}{chance.choice(LETTERS)}": random_value(chance, depth + 1) for i in range(count)
        }
    return [random_value(chance, depth + 1) for _ in range(count)]


@pytest.mark.parametrize("ascii_only", [True, False])
def test_it_reads_what_json_reads(monkeypatch, ascii_only):
    monkeypatch.setattr(bounded_json, "LONG_BYTES", 64)
    monkeypatch.setattr(bounded_json, "_PIECE", 17)
    chance, texts = random.Random(7), 0
    for _ in range(300):
        value = [random_value(chance) for _ in range(3)]
        written = json.dumps(value, ensure_ascii=ascii_only, indent=chance.choice([None, 1]))
        document = bounded_json.parse(bytearray(written.encode()))
        texts += len(document.long_texts)
        assert restored(document) == value
    assert texts > 100


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32", "utf-16-le"])
def test_other_encodings_of_short_bodies_are_read(encoding):
    body = bytearray(json.dumps({"é": ["x"]}, ensure_ascii=False).encode(encoding))
    assert bounded_json.parse(body).value == {"é": ["x"]}


def test_a_long_string_stays_in_the_body_and_comes_in_pieces(monkeypatch):
    text = "QUJD/+" * 50_000
    written = json.dumps({"url": text}).replace("/", "\\/").replace("+", "\\u002b").encode()
    document = bounded_json.parse(bytearray(written))
    long_text = document.long_texts[document.value["url"]]
    assert long_text.text() == text
    pieces = list(long_text.pieces())
    assert b"".join(pieces) == text.encode() and max(map(len, pieces)) <= 256 << 10
    for size in range(7, 40):  # an escape is never cut, wherever a piece ends
        monkeypatch.setattr(bounded_json, "_PIECE", size)
        part = bounded_json.LongText(long_text.body, long_text.start, long_text.start + 600)
        assert (
            b"".join(part.pieces())
            == json.loads(b'"%b"' % part.body[part.start : part.end]).encode()
        )


def test_a_client_cannot_write_the_name_of_a_long_string():
    long = "x" * (bounded_json.LONG_BYTES + 1)
    first, second = (bounded_json.parse(bytearray(json.dumps([long]).encode())) for _ in range(2))
    assert first.value != second.value


PART = b'{"type":"text","text":"a"},'
SIZE = 3_000_000
BODIES = {
    "small parts": (b"[" + PART * (SIZE // len(PART)) + b"0]", 413),
    "numbers": (b"[" + b"1," * (SIZE // 2) + b"1]", 413),
    "empty lists": (b"[" + b"[]," * (SIZE // 3) + b"0]", 413),
    "names": (b"{" + b'"a":1,' * (SIZE // 6) + b'"a":1}', 413),
    "nested lists": (b"[" * SIZE, 400),
    "nested lists that end": (b"[" * (SIZE // 2) + b"]" * (SIZE // 2), 400),
    "nested objects": (b'{"a":' * (SIZE // 5), 400),
    "quotes in a string": (b'["' + b'\\"' * (SIZE // 2) + b'"]', 413),
    "backslashes": (b'["' + b"\\" * SIZE, 400),
    "backslashes that end": (b'["' + b"\\" * (2 * SIZE) + b'"', 413),
    "many backslashes": (b'["' + b"\\" * 60_000 + b'"', 400),
    "a string without its end": (b'["' + b"x" * SIZE, 400),
    "blanks": (b" " * (SIZE * 2), 413),
    "zeros": (b"\0" * SIZE, 400),
    "one number": (b"[" + b"1" * SIZE + b"]", 400),
    "a long name": (b'{"' + b"x" * SIZE + b'" : 1}', 400),
    "letters": (b"x" * SIZE, 400),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_body_that_would_be_costly_is_refused_cheaply(name):
    """json.loads of these took up to a second and 90 times their size, without a pause."""
    data, status = BODIES[name]
    body = bytearray(data)
    started = time.process_time()
    with pytest.raises(ApiError) as told:
        bounded_json.parse(body)
    assert told.value.status == status, told.value.message
    assert time.process_time() - started < 0.5
    tracemalloc.start()  # which makes it ten times slower
    try:
        with suppress(ApiError):
            bounded_json.parse(body[:100_000])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4e6


@pytest.mark.parametrize("data", [b"", b"{", b'"', b"nul", b'{"a":}', b"\xff\xfe", b'["\\x"]'])
def test_what_is_no_json_is_told(data):
    with pytest.raises(ApiError, match="not valid JSON"):
        bounded_json.parse(bytearray(data))


def test_the_largest_honest_conversation_is_read():
    parts = [{"type": "text", "text": "word " * 20} for _ in range(16)]
    messages = [{"role": "user", "content": parts} for _ in range(256)]
    value = {"model": "reelbank", "messages": messages}
    assert bounded_json.parse(bytearray(json.dumps(value, indent=1).encode())).value == value
