"""Videos at URLs: fetched once from allowed hosts, with no way into the server's own network.

A real HTTP server on this machine, real sockets.
"""

import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from pipeline.server.errors import ApiError
from pipeline.server.fetch import Fetcher, is_public
from tests.support.serving import film, serving
from tests.support.toys import toy_parts


class Site(BaseHTTPRequestHandler):
    """Gives what `pages` says: (status, location or body)."""

    pages: dict[str, tuple[int, Any]]
    asked: Counter[str]

    def do_GET(self) -> None:
        self.asked[self.path] += 1
        status, what = self.pages.get(self.path, (404, b""))
        self.send_response(status)
        if isinstance(what, str):
            self.send_header("Location", what)
            what = b""
        self.end_headers()
        try:
            for piece in what if isinstance(what, list) else [what]:
                self.wfile.write(piece)
                self.wfile.flush()
                time.sleep(0.05 if isinstance(what, list) else 0)
        except OSError:
            pass  # the other side has had enough

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def site(**pages: tuple[int, Any]) -> Iterator[tuple[str, Counter[str]]]:
    """host:port of a site with these pages, and how often each was asked for."""
    asked: Counter[str] = Counter()
    handler = type(
        "Here",
        (Site,),
        {"pages": {f"/{name}": page for name, page in pages.items()}, "asked": asked},
    )
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.server_address[1]}", asked
        server.shutdown()
        thread.join()


def fetch(fetcher: Fetcher, url: str) -> bytes:
    with fetcher.pieces(url) as pieces:
        return b"".join(pieces)


def refused(fetcher: Fetcher, url: str, status: int, words: str) -> None:
    with pytest.raises(ApiError) as told:
        fetch(fetcher, url)
    assert (told.value.status, words in told.value.message) == (status, True), told.value.message


def test_an_allowed_host_is_fetched_from_and_redirects_are_followed():
    with site(a=(200, b"film"), b=(302, "/a"), c=(301, "b")) as (host, _):
        fetcher = Fetcher((host,), private=True, seconds=10)
        assert [fetch(fetcher, f"http://{host}/{page}") for page in "abc"] == [b"film"] * 3
        refused(fetcher, f"http://{host}/none", 502, "answered 404")


@pytest.mark.parametrize(
    "url",
    [
        "ftp://videos.example/a", "file:///etc/passwd", "gopher://videos.example/", "http:///a", "http://videos.example:99999/",
        "http://videos.example\\@evil.example/", "http://user:word@videos.example/a",
        "http://videos.example/a b",
        "http://videos.example/\r\nX: y", "http://evil.example/videos.example", "http://videos.example.evil.example/",
        "http://evilvideos.example/", "http://videos.example:8080/", "http://[::1]/",
        "http://127.0.0.1/", "http://2130706433/",
        "http://0x7f.1/", "http://localhost/", "//videos.example/a", "", "http://vıdeos.example/",
    ],
)  # fmt: skip
def test_what_is_not_allowed_is_refused_before_any_name_is_looked_up(url, monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("a name was looked up"))
    with pytest.raises(ApiError) as told:
        fetch(Fetcher(("videos.example", "*.videos.example"), private=True, seconds=10), url)
    assert told.value.status == 400


def test_no_host_is_allowed_unless_named(monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("a name was looked up"))
    refused(
        Fetcher((), private=True, seconds=10),
        "https://example.org/a.mp4",
        400,
        "not fetched from example.org",
    )


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
        "0.0.0.0", "224.0.0.1", "::1",
        "::", "240.0.0.1", "255.255.255.255", "198.18.0.1", "192.0.2.1", "fe80::1", "fe80::1%eth0",
        "fc00::1", "ff02::1",
        "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe",
        "2002:7f00:1::", "2001:db8::1",
    ],
)  # fmt: skip
def test_addresses_that_are_not_public(address):
    assert not is_public(address)


def test_public_addresses():
    assert all(
        is_public(address)
        for address in ("8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808")
    )


def test_an_allowed_host_with_a_private_address_is_refused_and_never_connected_to():
    with site(a=(200, b"secret")) as (host, asked):
        refused(
            Fetcher((host,), private=False, seconds=10),
            f"http://{host}/a",
            400,
            "not a public address",
        )
        name = f"localhost:{host.split(':')[1]}"
        refused(
            Fetcher((name,), private=False, seconds=10),
            f"http://{name}/a",
            400,
            "not a public address",
        )
        assert not asked


def test_a_redirect_is_looked_at_like_the_first_url():
    with site(a=(200, b"secret")) as (inner, asked):
        with site(
            b=(302, f"http://{inner}/a"), c=(302, "file:///etc/passwd"), d=(302, "/d"), e=(302, "")
        ) as (outer, _):
            fetcher = Fetcher((outer,), private=True, seconds=10)
            refused(fetcher, f"http://{outer}/b", 400, "not fetched from")
            refused(fetcher, f"http://{outer}/c", 400, "http")
            refused(fetcher, f"http://{outer}/d", 502, "one redirect after another")
        assert not asked


def test_a_name_that_changes_its_address_is_connected_to_where_it_was_looked_at(monkeypatch):
    """The first lookup gives 127.0.0.1, later ones a dead address. Only the first may count."""
    real, looked = socket.getaddrinfo, []

    def rebound(host, port, *args, **kwargs):
        if host == "videos.example":
            looked.append(host)
            host = "127.0.0.1" if len(looked) == 1 else "127.0.0.2"
        return real(host, port, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", rebound)
    with site(a=(200, b"film")) as (host, _):
        name = f"videos.example:{host.split(':')[1]}"
        assert fetch(Fetcher((name,), private=True, seconds=10), f"http://{name}/a") == b"film"
    assert looked == ["videos.example"]


def test_a_name_with_public_and_private_addresses_is_refused(monkeypatch):
    entries = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80))
        for address in ("8.8.8.8", "127.0.0.1")
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: entries)
    refused(
        Fetcher(("videos.example",), private=False, seconds=10),
        "http://videos.example/a",
        400,
        "not a public address",
    )


def test_a_host_that_is_slow_silent_or_gone_is_told():
    with site(slow=(200, [b"x"] * 100)) as (host, _):
        refused(Fetcher((host,), private=True, seconds=0.3), f"http://{host}/slow", 504, "too slow")
    refused(
        Fetcher((host,), private=True, seconds=5), f"http://{host}/slow", 502, "cannot be fetched"
    )
    with socket.create_server(("127.0.0.1", 0)) as silent:
        name = f"127.0.0.1:{silent.getsockname()[1]}"
        refused(
            Fetcher((name,), private=True, seconds=0.3),
            f"http://{name}/a",
            504,
            "does not answer in time",
        )


class Drip(BaseHTTPRequestHandler):
    """Sends a byte of its head or of its body every 50 ms, forever."""

    def do_GET(self) -> None:
        try:
            if self.path == "/body":
                self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
            elif self.path == "/redirect":
                self.wfile.write(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n")
                self.wfile.write(b"Connection: close\r\nLocation: /redirect\r\n\r\n")
                time.sleep(0.2)
                return
            elif self.path == "/chunk":
                self.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;")
            else:
                self.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
            while True:
                self.wfile.write(b"x")
                time.sleep(0.05)
        except OSError:
            pass

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def dripping():
    with ThreadingHTTPServer(("127.0.0.1", 0), Drip) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.mark.parametrize("page", ["body", "head", "chunk", "redirect"])
def test_a_host_that_drips_is_given_up_when_the_time_of_the_whole_is_up(dripping, page):
    """Each byte used to give it another ten seconds."""
    started = time.monotonic()
    with pytest.raises(ApiError) as told:
        fetch(Fetcher((dripping,), private=True, seconds=0.5), f"http://{dripping}/{page}")
    assert told.value.status == 504 or page == "redirect", told.value.message
    assert time.monotonic() - started < 2.5


def test_a_body_that_drips_is_given_up_long_before_that(dripping, monkeypatch):
    monkeypatch.setattr("pipeline.server.fetch._SLOW_S", 0.4)
    started = time.monotonic()
    fetcher = Fetcher((dripping,), private=True, seconds=300)
    refused(fetcher, f"http://{dripping}/body", 504, "too slow")
    assert time.monotonic() - started < 3


def test_a_name_that_is_not_looked_up_in_time_is_given_up(monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(3))
    started = time.monotonic()
    fetcher = Fetcher(("videos.example",), private=True, seconds=0.3)
    refused(fetcher, "http://videos.example/a", 504, "does not answer in time")
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("dotted", ["allowed", "URL", "both", "a wildcard"])
def test_a_final_dot_of_a_host_name_changes_nothing(dotted, monkeypatch):
    real, looked = socket.getaddrinfo, []

    def local(host, *args, **kwargs):
        looked.append(host)
        return real("127.0.0.1", *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", local)
    allowed = {"allowed": "v.example.", "URL": "v.example", "both": "v.example."}
    name = "v.example" if dotted == "allowed" else "V.Example."
    with site(a=(200, b"film")) as (host, asked):
        port = host.split(":")[1]
        fetcher = Fetcher((f"{allowed.get(dotted, '*.example.')}:{port}",), True, 10)
        assert fetch(fetcher, f"http://{name}:{port}/a") == b"film"
        refused(fetcher, f"http://v.example..:{port}/a", 400, "not fetched from")
    assert looked[0] == "v.example" and "v.example." not in looked and asked["/a"] == 1


def test_a_video_at_a_url_is_fetched_once_and_is_the_same_video_as_its_upload(tmp_path):
    path = film(tmp_path / "card.mp4", "code:4821@2", seconds=6.0)
    large = b"\0" * 2_000_000
    with (
        site(
            **{
                "my%20film.mp4": (200, path.read_bytes()),
                "page": (200, b"<html>"),
                "large": (200, large),
            }
        ) as (host, asked),
        serving(tmp_path, f"hosts=['{host}']", "private=true", "upload_mb=1", *toy_parts()) as (
            address,
            service,
        ),
    ):

        def ask(page: str) -> httpx.Response:
            parts = [
                {"type": "video_url", "video_url": {"url": f"http://{host}/{page}"}},
                {"type": "text", "text": "What?"},
            ]
            body = {"model": "reelbank", "messages": [{"role": "user", "content": parts}]}
            return httpx.post(f"{address}/v1/chat/completions", json=body, timeout=60)

        first, second = ask("my%20film.mp4"), ask("my%20film.mp4")
        assert (first.status_code, second.status_code) == (200, 200), first.text
        assert asked["/my%20film.mp4"] == 1 and service.encode_queue.runs == 1
        uploaded = httpx.post(
            f"{address}/v1/files", files={"file": ("x.mp4", path.read_bytes())}
        ).json()
        assert uploaded["filename"] == "my film.mp4" and service.encode_queue.runs == 1
        for page, status, words in (
            ("page", 400, "not a video"),
            ("large", 413, "larger than 1 MB"),
            ("gone", 502, "404"),
        ):
            answered = ask(page)
            assert (answered.status_code, words in answered.json()["error"]["message"]) == (
                status,
                True,
            ), answered.text
        assert len(service.files.all()) == 1
