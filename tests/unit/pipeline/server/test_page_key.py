"""The key of a visitor in a cookie, which pictures and films come with. No server."""

import asyncio

import pytest
from starlette.types import Receive, Scope, Send

from pipeline.server.page.routes import KeyOfCookie


def sent_on(method: str, path: str, **headers: str) -> bytes | None:
    """The header Authorization that the application gets."""
    got: list[bytes | None] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        got.append(dict(scope["headers"]).get(b"authorization"))

    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": method, "path": path, "headers": pairs}
    asyncio.run(KeyOfCookie(app)(scope, None, None))  # type: ignore[arg-type]
    return got[0]


COOKIE = "theme=dark; reelbank_key=rb_1_a%2Fb"


@pytest.mark.parametrize(
    ("method", "path", "more", "expected"),
    [
        ("GET", "/v1/videos/a/picture", {}, b"Bearer rb_1_a/b"),
        ("HEAD", "/v1/videos/a/content", {}, b"Bearer rb_1_a/b"),
        ("GET", "/v1/videos/a/picture", {"authorization": "Bearer x"}, b"Bearer x"),
        ("GET", "/v1/files", {}, None),  # nothing but what the page shows
        ("POST", "/v1/videos/a/picture", {}, None),
    ],
)
def test_the_cookie_stands_for_the_key_where_a_browser_sends_no_header(
    method, path, more, expected
):
    assert sent_on(method, path, cookie=COOKIE, **more) == expected


def test_without_a_cookie_nothing_is_sent_on():
    assert sent_on("GET", "/v1/videos/a/picture") is None
    assert sent_on("GET", "/v1/videos/a/picture", cookie="reelbank_key=") is None
