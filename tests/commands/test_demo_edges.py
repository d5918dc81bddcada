"""What the page does with requests that it never sends itself. Raw sockets, a real server."""

import io
import json

import pytest
from PIL import Image

from tests.support.serving import accidents, exchange, paging, post_json, statuses
from tests.support.toys import toy_parts

OPEN = "Connection: close"


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    with paging(tmp_path_factory.mktemp("page"), *toy_parts()) as (address, _):
        yield address


def jpeg_of(size: bytes) -> bytes:
    """A small JPEG whose head claims another height and width."""
    out = io.BytesIO()
    Image.new("RGB", (16, 16)).save(out, "JPEG")
    data = bytearray(out.getvalue())
    at = data.find(b"\xff\xc0")  # start of frame: marker, length, precision, height, width
    data[at + 5 : at + 9] = size
    return bytes(data)


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{OPEN}\r\n\r\n".encode()


def post(path: str, body: bytes) -> bytes:
    return post_json(path, body, OPEN)


JOIN = "/gradio_api/queue/join"
ODD = {
    "a picture of 65,024 x 65,024": (post("/watch/frame/x", jpeg_of(b"\xfe\0\xfe\0")), 413),
    "a picture of 4,096 x 12,288": (post("/watch/frame/x", jpeg_of(b"\x10\0\x30\0")), 413),
    "an address of no host": (post("/watch/start", b'{"url": "http://["}'), 400),
    "nested lists": (post("/watch/start", b"[" * 60_000), 422),
    "half an emoji": (post("/watch/start", b'{"url": "\\ud800"}'), 422),
    "a moment that is no number": (get("/watch/picture/x?at=abc"), 422),
    "a moment that is nan": (get("/watch/picture/x?at=nan"), 404),
    "a name that is too long for a file": (get("/assets/" + "x" * 5000), 404),
    "a line break in a name": (get("/svelte/a%0ab"), 404),
    "two lengths": (
        b"POST /watch/stop HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + get("/config"),
        400,
    ),
    "Gradio: nested lists": (post(JOIN, b"[" * 60_000), 400),
    "Gradio: an unknown function": (
        post(JOIN, b'{"fn_index": 99, "session_hash": "a", "data": []}'),
        500,
    ),
    "Gradio: an infinite number": (
        post(JOIN, b'{"fn_index": 1e400, "session_hash": "a", "data": []}'),
        500,
    ),
    "Gradio: a large body": (post(JOIN, b" " * 70_000), 413),
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_request_is_answered_without_a_traceback(address, name):
    data, status = ODD[name]
    with accidents() as lines:
        told = exchange(address, data)
    assert statuses(told) == [status], told[:500]
    if not name.startswith("Gradio"):
        assert json.loads(told.partition(b"\r\n\r\n")[2])["error"]["message"].endswith(".")
    assert lines == []
