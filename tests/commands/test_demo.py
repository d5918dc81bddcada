"""The demo page in a real browser, and attacks on it from outside.

A real server, the embedded model, real films, Chromium.
"""

import io
import math
import socket
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from encoders.errors import UserError
from memory.schema import Evidence
from pipeline.config.compose import compose
from pipeline.demo import command
from pipeline.demo.answer_html import Exchange, render_conversation
from pipeline.demo.conversations import Conversations
from pipeline.needle_world import video
from pipeline.needle_world.cards import draw
from tests.support import streams
from tests.support.page import BOX, QUESTION, ask, pictured
from tests.support.paths import ROOT
from tests.support.serving import SIZE, film, paging
from tests.support.toys import toy_parts
from tests.support.videos import write_video


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    film(folder / "card.mp4", "code:4821@1", seconds=20.0)
    return folder


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    with paging(tmp_path_factory.mktemp("page"), "upload_mb=3", "hosts=[127.0.0.1]") as both:
        yield both


@pytest.fixture
def opened(page, browser):
    """Opens the page at a size. Fails when its script fails or a request goes to another server."""
    contexts, wrong = [], []

    def open_at(width: int, height: int, **more: Any) -> Any:
        context = browser.new_context(viewport={"width": width, "height": height}, **more)
        contexts.append(context)
        tab = context.new_page()
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        tab.on(
            "request",
            lambda request: (
                request.url.startswith((page[0], "blob:", "data:")) or wrong.append(request.url)
            ),
        )
        tab.goto(page[0])
        tab.wait_for_selector(BOX)
        tab.wait_for_selector("#figures div")  # the script has drawn
        return tab

    yield open_at
    for context in contexts:
        context.close()
    page[1].feeds.stop()
    assert wrong == []


def played(tab: Any) -> float:
    seconds: float = tab.evaluate("document.getElementById('player').currentTime")
    return seconds


def test_a_film_is_asked_about_while_it_runs_and_the_player_jumps_to_the_cited_moment(
    opened, films
):
    tab = opened(1280, 900)
    assert "choose a video first" in ask(tab)  # nothing to ask about yet
    assert tab.evaluate(
        "document.createElement('video').canPlayType('video/mp4; codecs=\"avc1.42E01E\"')"
    )
    tab.set_input_files("#file", films / "card.mp4")
    tab.wait_for_function("document.getElementById('player').currentTime > 4")
    assert ask(tab) == "4821"
    assert tab.inner_text("#figures div:first-child dd") == "watching"  # it still runs
    cited = tab.locator(".turn.newest .cite").first
    start, end = float(cited.get_attribute("data-start")), float(cited.get_attribute("data-end"))
    assert start < 3 and end > 1  # the card's two seconds
    tab.wait_for_selector("#track .cited", state="attached")
    pictured(tab, "page")
    cited.click()
    within = (
        "([a, b]) => { const t = document.getElementById('player').currentTime; "
        "return t >= a && t <= b + 0.5 }"
    )
    tab.wait_for_function(within, arg=[start, end])
    assert tab.locator(".thumb.hot").count() >= 1
    assert ask(tab, "And after that?") != "4821"  # a follow-up, about what came later
    assert "Understood as: What is the code on the card? (from 00:0" in tab.inner_text(
        ".turn.newest .note"
    )


@pytest.mark.slow
def test_a_standing_request_is_told_once_when_it_is_shown_and_leads_there(opened, films):
    film(films / "star.mp4", "shape:red star@8", seconds=16.0)
    tab = opened(1280, 900)
    tab.set_input_files("#file", films / "star.mp4")
    tab.wait_for_function("document.getElementById('title').textContent === 'star.mp4'")
    tab.fill("#request", "a dog barks")
    tab.press("#request", "Enter")
    tab.wait_for_function(
        "document.getElementById('refused').textContent.includes('does not know')"
    )
    tab.fill("#request", "a red star appears")
    tab.press("#request", "Enter")
    tab.wait_for_selector("#requests li")
    tab.wait_for_selector("#notices li")
    pictured(tab, "standing")
    tab.wait_for_function("document.querySelector('#figures dd').textContent === 'all seen'")
    assert tab.locator("#notices li").count() == 1
    tab.click("#notices .cite")
    tab.wait_for_function("Math.abs(document.getElementById('player').currentTime - 9) < 2.5")
    tab.click("#requests button")
    tab.wait_for_function("!document.querySelector('#requests li')")


@pytest.mark.slow
def test_a_phone_shows_all_of_it_without_scrolling_sideways(opened, films):
    tab = opened(390, 844, device_scale_factor=2, is_mobile=True, has_touch=True)
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    tab.set_input_files("#file", films / "card.mp4")
    tab.wait_for_function("document.getElementById('player').currentTime > 6")
    assert ask(tab) == "4821"
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    tops = [
        tab.locator(name).bounding_box()["y"]
        for name in ("#pick", "#player", "#talk", "#send", "#figures")
    ]
    assert tops == sorted(tops)
    small = tab.evaluate(
        "[...document.querySelectorAll('button')].filter(b => b.offsetParent && "
        "!b.matches('.small') && b.offsetHeight < 30)"
        ".map(b => b.outerHTML.slice(0, 80))"
    )
    assert small == []
    pictured(tab, "page-phone")
    tab.locator(".turn.newest .cite").first.tap()
    tab.wait_for_function("document.getElementById('player').currentTime < 5")


@pytest.mark.slow
def test_the_page_works_from_the_keyboard_alone(opened, films):
    tab = opened(1280, 900)

    def reach(selector: str) -> None:
        for _ in range(60):
            if tab.evaluate(
                "s => document.activeElement && document.activeElement.matches(s)", selector
            ):
                return
            tab.keyboard.press("Tab")
        raise AssertionError(f"{selector} cannot be reached with Tab")

    reach("#pick")
    with tab.expect_file_chooser() as chooser:
        tab.keyboard.press("Enter")
    chooser.value.set_files(films / "card.mp4")
    tab.wait_for_function("document.getElementById('player').currentTime > 6")
    reach(BOX)
    tab.keyboard.type(QUESTION)
    tab.keyboard.press("Enter")
    tab.wait_for_selector(".turn.newest .cite")
    tab.locator(".turn.newest").focus()
    reach(".cite")
    # where one is can be seen
    assert tab.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    before = played(tab)
    tab.keyboard.press("Enter")
    tab.wait_for_function("t => document.getElementById('player').currentTime < t", arg=before)
    unnamed = tab.evaluate("""[...document.querySelectorAll('button, input, textarea, video')]
        .filter(e => e.offsetParent && !e.labels?.length)
        .filter(e => !e.getAttribute('aria-label') && !e.textContent.trim())
        .map(e => e.outerHTML.slice(0, 80))""")
    assert unnamed == []


@pytest.mark.slow
def test_a_browsers_camera_is_watched_and_looked_back_at(opened, page):
    tab = opened(1280, 900)
    tab.click("#camera")
    tab.wait_for_function(
        "document.getElementById('title').textContent === 'Camera of this browser'"
    )
    tab.wait_for_selector("#badge:has-text('Live')")
    tab.wait_for_function("document.querySelectorAll('.thumb').length >= 2", timeout=60_000)
    assert ask(tab)  # the picture of the browser's fake camera is not of this model's world
    assert tab.locator(".turn.newest .said.done").count() == 1
    tab.locator(".thumb").first.click()
    tab.wait_for_function("document.getElementById('still').naturalWidth > 0")
    pictured(tab, "camera")
    tab.click("#back")
    tab.wait_for_function("document.getElementById('player').videoWidth > 0")
    tab.click("#stop")
    tab.wait_for_function(
        "['stopped', 'all seen'].includes(document.querySelector('#figures dd').textContent)"
    )


@pytest.mark.slow
def test_a_file_that_the_browser_cannot_play_is_shown_in_pictures(opened, films):
    write_video(films / "old.avi", 8, 5, codec="mpeg4", size=SIZE)
    tab = opened(1280, 900)
    tab.uncheck("#real-time")
    tab.set_input_files("#file", films / "old.avi")
    tab.wait_for_function("document.getElementById('told').textContent.includes('cannot play')")
    tab.wait_for_function("document.getElementById('still').naturalWidth > 0")
    tab.wait_for_selector(".thumb")
    tab.locator(".thumb").first.click()
    tab.wait_for_function("document.getElementById('still').alt.startsWith('Picture at')")


@pytest.mark.slow
def test_the_page_works_behind_its_login(browser, tmp_path, monkeypatch):
    monkeypatch.setenv("REELBANK_AUTH", "ann:sesame")
    with paging(tmp_path, *toy_parts()) as (address, _):
        context = browser.new_context(http_credentials={"username": "ann", "password": "sesame"})
        tab = context.new_page()
        tab.goto(address)
        tab.wait_for_selector(BOX)
        assert "choose a video first" in ask(tab)
        context.close()


@pytest.mark.slow
def test_a_stream_is_watched_asked_about_and_looked_back_at(opened):
    footage, card = video.procedural_footage(3, SIZE), video.parse("code:4821@6", 0)

    def paint(seconds: float) -> np.ndarray:
        picture = footage(seconds)
        if card.start <= seconds < card.end:
            draw(picture, card.needle, card.place)
        return np.asarray(picture)

    tab = opened(1280, 900)
    with streams.Sender(paint, SIZE) as sender:
        tab.fill("#address", sender.url)
        tab.press("#address", "Enter")
        tab.wait_for_function(
            "document.getElementById('still').naturalWidth > 0 && "
            "!document.getElementById('still').hidden"
        )
        # answerable from three seconds after it was shown
        tab.wait_for_timeout(max(0.0, card.end + 3 - sender.now) * 1000)
        assert ask(tab) == "4821"
        assert tab.locator("#badge").inner_text() == "Live"
        tab.locator(".turn.newest .cite").first.click()
        tab.wait_for_function("document.getElementById('still').alt.startsWith('Picture at')")
        pictured(tab, "stream")
        tab.click("#back")
        tab.wait_for_function("document.getElementById('still').alt === 'Live picture'")
        tab.click("#stop")
        tab.wait_for_function("document.querySelector('#figures dd').textContent === 'stopped'")


# ---- from outside


def raw(address: str, path: str) -> tuple[int, bytes]:
    """GET a path as it stands, dots and all."""
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as client:
        client.sendall(
            f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
        )
        data = b""
        while piece := client.recv(1 << 16):
            data += piece
    return int(data.split()[1]), data


def test_no_file_of_the_server_can_be_read(page, films):
    address, demo = page
    upload = httpx.post(
        f"{address}/watch/upload", files={"file": ("card.mp4", (films / "card.mp4").read_bytes())}
    ).json()
    stored = demo.files.get(upload["file"])
    secrets = [
        "/etc/passwd",
        str(stored.path),
        str(stored.path.with_suffix(".json")),
        str(demo.feeds.qa.bank.root / "bank.json"),
    ]
    assert all(Path(secret).is_file() for secret in secrets)
    secrets += [str(ROOT / "pyproject.toml"), "pyproject.toml"]
    secrets += [8 * "../" + "etc/passwd", 8 * "..%2f" + "etc/passwd"]
    beginnings = """/gradio_api/file= /file= /gradio_api/file/ /static/ /assets/ /svelte/ /_app/
        /watch/media/ /watch/picture/ /gradio_api/proxy=file://
        /gradio_api/custom_component/x/y/z/ /""".split()
    for secret in secrets:
        for beginning in beginnings:
            status, data = raw(address, beginning + secret)
            assert status in (400, 403, 404), (beginning, secret, status)
            assert not any(word in data for word in (b"root:", b"ftyp", b"made_with", b"[project]"))
    closed = """/gradio_api/upload /gradio_api/run/ask /gradio_api/info /openapi.json /docs
        /gradio_api/vibe-code/ /monitoring /gradio_api/stream/x""".split()
    for path in closed:
        assert {httpx.get(address + path).status_code, httpx.post(address + path).status_code} <= {
            404,
            405,
        }, path
    assert httpx.get(f"{address}/config").status_code == 200  # what the page itself needs is open


@pytest.mark.parametrize(
    ("path", "sent", "status", "words"),
    [
        ("upload", {"files": {"file": ("a.mp4", b"no video " * 99)}}, 400, "a.mp4 is not a video"),
        ("upload", {"files": {"file": ("a.mp4", b"\0" * 3_500_000)}}, 413, "larger than 3 MB"),
        ("upload", {"files": {"file": ("a.mp4", b"\0" * 9_000_000)}}, 413, "larger than"),
        ("start", {"json": {"file": "../../etc/passwd"}}, 404, "There is no file"),
        (
            "start",
            {"json": {"url": "rtsp://10.0.0.1/x"}},
            400,
            "does not take streams from 10.0.0.1",
        ),
        ("start", {"json": {"url": "camera:0"}}, 400, "does not take cameras of the server"),
        ("start", {"json": {"url": "file:///etc/passwd"}}, 400, "does not take"),
        ("start", {"json": {"url": "/etc/passwd"}}, 400, "does not take"),
        ("start", {"json": {"url": ""}}, 400, "address is empty"),
        ("start", {"json": {}}, 422, "what to watch"),
        (
            "start",
            {"content": b"{", "headers": {"Content-Type": "application/json"}},
            422,
            "as JSON",
        ),
        ("request", {"json": {"request": 5}}, 422, "as JSON"),
        (
            "start",
            {"content": b"{}", "headers": {"Content-Type": "text/plain"}},
            415,
            "application/json",
        ),
        ("frame/x", {"content": b"no picture"}, 400, "no JPEG"),
        ("frame/x", {"content": b"\0" * 2_000_001}, 413, "larger than"),
        ("start", {"json": {}, "headers": {"Origin": "https://evil.example"}}, 403, "other sites"),
        ("start", {"json": {}, "headers": {"Host": "evil.example"}}, 421, "name"),
    ],
)
def test_a_bad_request_is_told_in_one_sentence(page, path, sent, status, words):
    answered = httpx.post(f"{page[0]}/watch/{path}", **sent)
    told = answered.json()["error"]["message"]
    assert (answered.status_code, words in told, told.count("\n")) == (status, True, 0), (
        answered.text
    )


def test_pictures_of_a_browser_are_bounded_and_belong_to_what_is_watched(page):
    address, _ = page
    started = httpx.post(f"{address}/watch/start", json={"browser": "camera"}).json()
    out = io.BytesIO()
    Image.new("RGB", (320, 180), "red").save(out, "JPEG")
    assert (
        httpx.post(f"{address}/watch/frame/{started['id']}", content=out.getvalue()).status_code
        == 200
    )
    assert httpx.post(f"{address}/watch/frame/other", content=out.getvalue()).status_code == 404
    large = io.BytesIO()
    Image.new("L", (5000, 8)).save(large, "JPEG")
    assert (
        httpx.post(f"{address}/watch/frame/{started['id']}", content=large.getvalue()).status_code
        == 413
    )
    ends = time.monotonic() + 20
    while (seen := httpx.get(f"{address}/watch/state").json())["state"] != "running":
        assert time.monotonic() < ends, seen
        # the first ones may come before it begins
        httpx.post(f"{address}/watch/frame/{started['id']}", content=out.getvalue())
        time.sleep(0.05)
    shown = httpx.get(f"{address}/watch/picture/{started['id']}")
    assert shown.headers["content-type"] == "image/jpeg" and Image.open(
        io.BytesIO(shown.content)
    ).size == (320, 180)
    assert httpx.post(f"{address}/watch/stop").status_code == 200


def test_headers_keep_the_page_to_itself(page):
    headers = httpx.get(page[0]).headers
    assert (
        "default-src 'self'" in headers["content-security-policy"]
        and headers["x-frame-options"] == "DENY"
    )


def test_a_login_is_wanted_where_one_is_set(tmp_path, monkeypatch):
    monkeypatch.setenv("REELBANK_AUTH", "ann:open sesame")
    with paging(tmp_path, *toy_parts()) as (address, _):
        for path in ("/", "/config", "/watch/state", "/gradio_api/queue/data"):
            assert httpx.get(address + path).status_code == 401
        assert httpx.get(address, auth=("ann", "wrong")).status_code == 401
        assert httpx.get(address, headers={"Authorization": "Basic ?"}).status_code == 401
        assert httpx.get(address, auth=("ann", "open sesame")).status_code == 200


def test_what_people_and_models_say_is_escaped():
    text = "<script>alert(1)</script>"
    told = render_conversation(
        (Exchange(text, 1, text=text, note=text, state="done", cited=((1.0, 2.0),)),)
    )
    assert "<script" not in told and told.count("&lt;script&gt;") == 3 and 'data-start="1"' in told


def test_a_question_to_nothing_too_long_or_empty_is_told(page):
    feeds = page[1].feeds
    feeds.close()
    talk = Conversations(feeds).get("page")
    (turns,) = talk.ask(QUESTION)
    assert (turns[-1].state, turns[-1].text) == (
        "failed",
        "There is nothing to ask about yet; choose a video first.",
    )


@pytest.mark.parametrize(
    ("more", "kept", "told"),
    [((), False, False), (("history_tokens=8",), True, False), (("tell_rounds=1",), False, True)],
)
def test_earlier_rounds_come_along_where_the_settings_say_so(
    tmp_path, films, monkeypatch, more, kept, told
):
    """history_tokens= and tell_rounds= reach what the model reads; without them, nothing does."""
    toys = (*toy_parts(), "read_tokens=12", "recent_frames=0", "reader.max_new_tokens=2")
    with paging(tmp_path, *toys, *more) as (_, parts):
        reader, read = parts.feeds.qa.answerer.reader, list[Evidence]()
        whole = reader.read
        monkeypatch.setattr(
            reader, "read", lambda evidence, *rest: read.append(evidence) or whole(evidence, *rest)
        )
        stored = parts.files.put([(films / "card.mp4").read_bytes()], "card.mp4", "vision")
        parts.feeds.start_file(stored, math.inf).session.wait_for_frame()
        talk = Conversations(parts.feeds, parts.new_dialogue).get("page")
        for question in ("What is the code?", "What is the icon?"):
            (*_, turns) = talk.ask(question)
            assert turns[-1].state == "done", turns[-1]
    first, second = (evidence.question for evidence in read)
    assert (first.keep, first.context) == ((), "")
    assert bool(second.keep) == kept
    assert ("Earlier question: What is the code?" in second.context) == told


@pytest.mark.parametrize("wrong", ["history_tokens=-1", "tell_rounds=-1"])
def test_a_history_below_nothing_is_refused(wrong):
    with pytest.raises(UserError, match=f"{wrong} is below 0"):
        command.check(compose("demo", [wrong]))


@pytest.mark.slow  # seconds of CPU
def test_a_model_that_reads_no_text_is_told_no_rounds():
    with pytest.raises(UserError, match="tell_rounds=1 needs a model that reads text"):
        command.build_demo(compose("demo", ["tell_rounds=1"]))
