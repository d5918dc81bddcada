"""What the routes of the page do with requests that the page never sends. Raw sockets, a server."""

import io
import json
import socket
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

import reelbank
from pipeline.config.compose import compose
from pipeline.server.app import Service
from tests.support.paths import ROOT
from tests.support.serving import accidents, exchange, film, post_json, serving, statuses
from tests.support.toys import toy_parts

OPEN = "Connection: close"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    with serving(folder, "upload_mb=3", "hosts=[127.0.0.1]", *toy_parts()) as both:
        yield both


@pytest.fixture(scope="module")
def card(page: tuple[str, Service], tmp_path_factory) -> dict[str, Any]:
    """A film that was handed in to be watched, of GET /v1/videos."""
    path = film(tmp_path_factory.mktemp("films") / "card.mp4", "code:4821@1", seconds=4.0)
    with path.open("rb") as opened:
        files = {"file": ("card.mp4", opened)}
        sent = httpx.post(f"{page[0]}/v1/files", files=files, data={"purpose": "live"}).json()
    videos = httpx.get(f"{page[0]}/v1/videos").json()["data"]
    (video,) = [each for each in videos if each["file_id"] == sent["id"]]
    return dict(video)


def jpeg(size: tuple[int, int] = (320, 180), mode: str = "RGB") -> bytes:
    out = io.BytesIO()
    Image.new(mode, size).save(out, "JPEG")
    return out.getvalue()


def claiming(size: bytes) -> bytes:
    """A small JPEG whose head claims another height and width."""
    data = bytearray(jpeg((16, 16)))
    at = data.find(b"\xff\xc0")  # start of frame: marker, length, precision, height, width
    data[at + 5 : at + 9] = size
    return bytes(data)


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{OPEN}\r\n\r\n".encode()


def post(path: str, body: bytes) -> bytes:
    return post_json(path, body, OPEN)


ODD = {
    "a picture of 65,024 x 65,024": (post("/v1/videos/x/frame", claiming(b"\xfe\0\xfe\0")), 413),
    "a picture of 4,096 x 12,288": (post("/v1/videos/x/frame", claiming(b"\x10\0\x30\0")), 413),
    "an address of no host": (post("/v1/streams", b'{"name": "a", "url": "http://["}'), 400),
    "nested lists": (post("/v1/videos", b"[" * 60_000), 422),
    "half an emoji": (post("/v1/videos", b'{"browser": "\\ud800"}'), 422),
    "a moment that is no number": (get("/v1/videos/x/picture?at=abc"), 422),
    "a moment that is nan": (get("/v1/videos/x/picture?at=nan"), 422),
    "a clip of nothing": (get("/v1/videos/x/clip?start=1"), 422),
    "a name that is too long for a file": (get("/page/" + "x" * 5000), 404),
    "a line break in a name": (get("/page/a%0ab"), 404),
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_request_is_answered_without_a_traceback(page, name):
    data, status = ODD[name]
    with accidents() as lines:
        answer = exchange(page[0], data)
    assert statuses(answer) == [status], answer[:500]
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["message"].endswith(".")
    assert lines == []


JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("path", "sent", "status", "words"),
    [
        ("videos", {"json": {"browser": "microphone"}}, 422, "what to watch"),
        ("videos", {"json": {}}, 422, "what to watch"),
        ("videos", {"json": {"browser": "camera", "more": 1}}, 422, "what to watch"),
        ("videos", {"content": b"{", "headers": JSON}, 422, "what to watch"),
        (
            "videos",
            {"content": b"{}", "headers": {"Content-Type": "text/plain"}},
            415,
            "application/json",
        ),
        ("videos/x/frame", {"content": b"no picture"}, 400, "no JPEG"),
        ("videos/x/frame", {"content": b"\0" * 2_000_001}, 413, "larger than"),
        ("videos/x/play", {"json": {"speed": 1}}, 404, "no such film"),
        ("videos/x/play", {"json": {"speed": -1}}, 422, "how fast"),
        ("videos/x/play", {"json": {"speed": "1e999"}}, 422, "how fast"),
        ("videos/../../etc/passwd/play", {"json": {}}, 404, ""),
        (
            "streams",
            {"json": {"name": "a", "url": "rtsp://10.0.0.1/x"}},
            400,
            "does not take streams from 10.0.0.1",
        ),
        ("streams", {"json": {"name": "a", "url": "camera:0"}}, 400, "does not take cameras"),
        ("streams", {"json": {"name": "a", "url": "browser:camera"}}, 400, "is no address"),
        ("streams", {"json": {"name": "a", "url": "/etc/passwd"}}, 400, "is no address"),
        ("videos", {"json": {}, "headers": {"Origin": "https://evil.example"}}, 403, "other sites"),
        ("videos", {"json": {}, "headers": {"Host": "evil.example"}}, 421, "name"),
    ],
)
def test_a_bad_request_is_told_in_one_sentence(page, path, sent, status, words):
    response = httpx.post(f"{page[0]}/v1/{path}", **sent)
    message = response.json()["error"]["message"]
    assert (response.status_code, words in message, message.count("\n")) == (status, True, 0), (
        response.text
    )


def test_pictures_of_a_browser_are_bounded_and_belong_to_what_is_watched(page):
    videos = f"{page[0]}/v1/videos"
    started = httpx.post(videos, json={"browser": "camera"}).json()["id"]

    def push(name: str, data: bytes) -> int:
        return httpx.post(f"{videos}/{name}/frame", content=data).status_code

    assert push(started, jpeg()) == 200
    assert push("other", jpeg()) == 404
    assert push(started, jpeg((5000, 8), "L")) == 413
    ends = time.monotonic() + 20
    while (seen := httpx.get(f"{videos}/{started}").json())["stream"]["state"] != "running":
        assert time.monotonic() < ends, seen
        push(started, jpeg())  # the first ones may come before it begins
        time.sleep(0.05)
    for query in ("", "?at=0"):  # the newest one, and one of the shelf
        shown = httpx.get(f"{videos}/{started}/picture{query}")
        assert shown.headers["content-type"] == "image/jpeg"
        assert Image.open(io.BytesIO(shown.content)).size == (320, 180)
    assert httpx.delete(f"{videos}/{started}/play").status_code == 200
    assert push(started, jpeg()) == 404
    assert httpx.delete(f"{videos}/other/play").status_code == 404
    assert not (
        page[1].qa.bank.root.parent / "bank-streams.json"
    ).exists()  # nobody sends them again


def test_a_clip_is_of_the_film_alone_and_leaves_nothing(page, card, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    clip = f"{page[0]}/v1/videos/{card['id']}/clip"
    cut = httpx.get(clip, params={"start": 1, "end": 2.5})
    assert cut.status_code == 200 and b"ftyp" in cut.content[:32]
    assert 'filename="card_00-01.mp4"' in cut.headers["content-disposition"]
    for start, end, status in ((3, 2, 422), (-1, 2, 422), (9, 12, 422), (0, 1e9, 200)):
        assert httpx.get(clip, params={"start": start, "end": end}).status_code == status
    nothing = httpx.get(f"{page[0]}/v1/videos/{card['id']}/summary")  # it is not encoded yet
    assert nothing.status_code in (400, 404) and "\n" not in nothing.json()["error"]["message"]
    assert list(tmp_path.iterdir()) == []


def raw(address: str, path: str) -> tuple[int, bytes]:
    """GET a path as it stands, dots and all."""
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as client:
        client.sendall(get(path))
        data = b""
        while piece := client.recv(1 << 16):
            data += piece
    return int(data.split()[1]), data


def test_no_file_of_the_server_can_be_read(page, card):
    address, service = page
    stored = service.files.get(card["file_id"])
    secrets = [
        "/etc/passwd",
        str(stored.path),
        str(stored.path.with_suffix(".json")),
        str(service.qa.bank.root / "bank.json"),
    ]
    assert all(Path(secret).is_file() for secret in secrets)
    secrets += [str(ROOT / "pyproject.toml"), "pyproject.toml", "../page/routes.py"]
    secrets += [8 * "../" + "etc/passwd", 8 * "..%2f" + "etc/passwd"]
    beginnings = "/page/ /static/ /v1/files/ /v1/videos/ /watch/media/ /".split()
    for secret in secrets:
        for beginning in beginnings:
            status, data = raw(address, beginning + secret)
            assert status in (400, 403, 404), (beginning, secret, status)
            assert not any(word in data for word in (b"root:", b"ftyp", b"made_with", b"[project]"))
    assert httpx.get(f"{address}/page/library.js").status_code == 200  # what the page itself needs


def test_headers_keep_the_page_to_itself(page):
    for path in ("/", "/live", "/film/x", "/page/library.js"):
        headers = httpx.get(page[0] + path).headers
        assert "default-src 'self'" in headers["content-security-policy"]
        assert headers["x-frame-options"] == "DENY"


@pytest.mark.slow
def test_several_banks_are_one_library_in_which_nothing_is_watched(tmp_path):
    """What `reelbank demo --bank A --bank B` shows."""
    for name in ("bank", "other"):
        with reelbank.open(tmp_path / name, options=toy_parts()) as bank:
            bank.add(film(tmp_path / f"{name}.mp4", "code:4821@1", seconds=4.0, seed=len(name)))
    options = compose("demo", [f"bank={tmp_path / 'bank'}", f"also_banks=[{tmp_path / 'other'}]"])
    assert options.whole_bank
    several = (f"also_banks=[{options.also_banks[0]}]", "whole_bank=true", *toy_parts())
    with serving(tmp_path, *several) as (address, _):
        reply = httpx.get(f"{address}/v1/videos").json()
        assert sorted(each["title"] for each in reply["data"]) == ["bank.mp4", "other.mp4"]
        assert not reply["can_watch"]
        for video in reply["data"]:
            path = f"{address}/v1/videos/{video['id']}"
            assert httpx.get(f"{path}/picture", params={"at": 1}).status_code == 200
            assert httpx.get(f"{path}/clip", params={"start": 1, "end": 2}).status_code == 200
            assert httpx.get(f"{path}/summary").json()["chapters"]
        assert httpx.post(f"{address}/v1/videos", json={"browser": "camera"}).status_code == 405
