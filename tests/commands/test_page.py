"""The page of `reelbank serve` in a real browser: the library, a film, a stream, the conversation.

A real server, the embedded model, real films and streams, Chromium, axe-core.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

import reelbank
from pipeline.server.access.key import new_key
from pipeline.server.access.key_file import KeyFile
from tests.support.page import QUESTION, pictured
from tests.support.serving import film, serving
from tests.support.sessions import world
from tests.support.streams import Sender
from tests.support.talks import SRT

pytestmark = pytest.mark.slow
SIZES = ((1280, 900), (390, 844))


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with a film of its bank that has subtitles, an uploaded film, and a stream."""
    folder = tmp_path_factory.mktemp("served")
    star = film(folder / "star.mp4", "shape:red star@8", "name:Alice@2", seconds=24.0, seed=5)
    star.with_suffix(".srt").write_text(SRT)
    options = ["text=subtitles", "source.keep=jpeg"]
    with reelbank.open(folder / "bank", options=options) as bank:
        bank.add(star)
    paint = world("code:1234@2", "shape:red star@6")
    with Sender(lambda at: paint(at % 12)) as sender:
        file = folder / "streams.yaml"
        file.write_text(f"streams:\n  door: {{url: '{sender.url}'}}\n")
        with serving(folder, f"streams={file}", "whole_bank=true", "source.keep=jpeg") as (url, _):
            path = film(folder / "card.mp4", "code:4821@5", seconds=20.0)
            data = {"purpose": "user_data"}
            with path.open("rb") as opened:
                files = {"file": ("card.mp4", opened)}
                sent = httpx.post(f"{url}/v1/files", files=files, data=data, timeout=60).json()
            until(lambda: httpx.get(f"{url}/v1/files/{sent['id']}").json()["encoded"] == 1)
            until(lambda: httpx.get(f"{url}/v1/streams/door").json()["healthy"])
            yield url


@pytest.fixture
def opened(address, browser):
    """Opens a path of the page. Fails when the script fails or asks another server."""
    contexts, wrong = [], []

    def open_at(path: str = "/", size: tuple[int, int] = SIZES[0], **more: Any) -> Any:
        context = browser.new_context(viewport={"width": size[0], "height": size[1]}, **more)
        contexts.append(context)
        tab = context.new_page()
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        tab.on(
            "request",
            lambda request: (
                request.url.startswith((address, "blob:", "data:")) or wrong.append(request.url)
            ),
        )
        tab.goto(address + path)
        tab.wait_for_selector(".card", state="attached")
        return tab

    yield open_at
    for context in contexts:
        context.close()
    assert wrong == []


def until(is_so: Callable[[], bool], seconds: float = 60.0) -> None:
    ends = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < ends
        time.sleep(0.1)


def becomes(tab: Any, expression: str) -> None:
    """Wait until JavaScript says so. playwright's own wait compiles in the page, which its policy
    forbids."""
    until(lambda: bool(tab.evaluate(expression)))


def find(tab: Any, words: str) -> None:
    tab.fill("#words", words)
    tab.press("#words", "Enter")
    tab.wait_for_selector("#hits .card", timeout=60_000)


def ask(tab: Any, text: str = QUESTION) -> str:
    """Ask, and wait for the whole answer."""
    count = tab.locator(".turn").count()
    tab.fill("#question", text)
    tab.press("#question", "Enter")
    tab.wait_for_selector(f".turn >> nth={count}")
    tab.wait_for_selector(f".turn >> nth={count} >> .said:not(.running)", timeout=60_000)
    said: str = tab.locator(".turn .said").nth(count).inner_text()
    return said


def played(tab: Any) -> float:
    seconds: float = tab.evaluate("document.getElementById('player').currentTime")
    return seconds


def test_a_moment_is_found_opened_asked_about_and_shared(opened, address):
    tab = opened()
    names = tab.locator("#films .name").all_inner_texts()
    assert sorted(names) == ["card.mp4", "door", "star.mp4"]
    find(tab, "a red star")
    assert tab.locator("#hits .name").first.inner_text() in ("star.mp4", "door")
    tab.select_option("#only-film", label="star.mp4")
    find(tab, "granite")  # a word of its subtitles
    becomes(
        tab,
        "[...document.querySelectorAll('#hits .name')].every(e => e.textContent === 'star.mp4')",
    )
    pictured(tab, "serve")
    tab.select_option("#only-channel", label="subtitles")
    shown = tab.locator("#hits .more").all_inner_texts()
    assert shown and all("granite" in text for text in shown)
    tab.fill("#from", "one")
    tab.press("#words", "Enter")
    becomes(tab, "document.getElementById('told').textContent.includes('is no time')")
    tab.locator("#hits .card").first.click()
    tab.wait_for_selector("#lines button")
    tab.locator("#lines button").last.click()
    assert "#t=" in tab.url and played(tab) > 0
    tab.goto(address + "/film/nothing")
    becomes(tab, "document.getElementById('told').textContent.includes('no such film')")
    tab.goto(address)
    tab.click("#films .card:has-text('card.mp4')")
    tab.wait_for_selector("#stage:not([hidden]) .thumb")
    assert ask(tab) == "4821"
    tab.wait_for_selector("#track .cited", state="attached")
    cite = tab.locator(".turn .cite").first
    cite.click()
    becomes(tab, "Math.abs(document.getElementById('player').currentTime - 6) < 2.5")
    pictured(tab, "serve-film")
    other = opened(tab.url.removeprefix(address))  # somebody else follows the link
    becomes(other, "Math.abs(document.getElementById('player').currentTime - 6) < 2.5")
    assert other.locator(".turn").count() == 0  # with a conversation of their own
    tab.go_back()
    tab.wait_for_selector("#library:not([hidden])")


def test_a_stream_is_asked_about_and_told_of(opened):
    tab = opened("/film/door")
    tab.wait_for_selector("#still:not([hidden])")
    assert tab.inner_text("#figures dd >> nth=0") == "live"
    becomes(tab, "document.getElementById('clock').textContent > '00:14'")
    assert ask(tab) == "1234"
    tab.fill("#request", "a dog barks")
    tab.press("#request", "Enter")
    becomes(tab, "document.getElementById('refused').textContent.includes('not know')")
    tab.fill("#request", "a red star appears")
    tab.press("#request", "Enter")
    tab.wait_for_selector("#requests li")
    tab.wait_for_selector("#notices .cite", timeout=60_000)
    tab.click("#notices .cite")
    becomes(tab, "document.getElementById('still').alt.startsWith('Picture at')")
    assert "/film/door#t=" in tab.url
    tab.click("#requests button")
    becomes(tab, "!document.querySelector('#requests li')")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_everybody_can_use_it(opened, size, scheme):
    """axe-core finds nothing, and nothing has to be scrolled sideways."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()

    def violations(tab: Any) -> list[str]:
        found = axe.run(tab).response["violations"]
        return [f"{one['id']}: {node['html'][:100]}" for one in found for node in one["nodes"]]

    more = {"is_mobile": True, "has_touch": True} if size[0] < 600 else {}
    tab = opened("/", size, color_scheme=scheme, reduced_motion="reduce", **more)
    find(tab, "a red star")
    ask(tab)
    for path in ("star.mp4", "door"):
        assert violations(tab) == []
        assert tab.evaluate("document.documentElement.scrollWidth") <= size[0]
        tab.click(f"#films .card:has-text('{path}')")
        tab.wait_for_selector("#stage:not([hidden]) .thumb")
        tab.wait_for_timeout(300)
        pictured(tab, f"serve-{path}-{size[0]}-{scheme}")
        assert violations(tab) == []
        assert tab.evaluate("document.documentElement.scrollWidth") <= size[0]
        tab.click("h1 a")
    tab.evaluate("document.querySelector('.top p').style.color = '#777'")
    assert len(violations(tab)) == 1  # too little contrast is seen


def test_the_page_works_from_the_keyboard_alone(opened):
    tab = opened()

    def reach(selector: str) -> None:
        for _ in range(80):
            if tab.evaluate("s => document.activeElement.matches(s)", selector):
                return
            tab.keyboard.press("Tab")
        raise AssertionError(f"{selector} cannot be reached with Tab")

    reach("#words")
    tab.keyboard.type("granite")
    tab.keyboard.press("Enter")
    tab.wait_for_selector("#hits .card", timeout=60_000)
    reach("#hits .card")
    assert tab.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    tab.keyboard.press("Enter")
    tab.wait_for_selector("#stage:not([hidden]) .thumb")
    for selector in ("#thumbs .thumb", "#lines button", "#question"):
        reach(selector)
    tab.keyboard.type("What is the name on the card?")
    tab.keyboard.press("Enter")
    tab.wait_for_selector(".turn .cite", timeout=60_000)
    tab.locator("#fresh").focus()
    reach(".turn .cite")
    tab.keyboard.press("Enter")
    becomes(tab, "location.hash.startsWith('#t=')")


def test_a_visitor_enters_a_key_once(browser, tmp_path):
    key, token = new_key("ann", ("ask",), (), 0, 0.0)
    KeyFile(tmp_path / "bank-keys.json").add(key)
    with reelbank.open(tmp_path / "bank") as bank:
        bank.add(film(tmp_path / "card.mp4", "code:4821@5", seconds=8.0))
    with serving(tmp_path, "whole_bank=true") as (address, _):
        assert httpx.get(f"{address}/v1/videos").status_code == 401
        context = browser.new_context()
        tab = context.new_page()
        tab.goto(address)
        tab.wait_for_selector("#key-form:not([hidden])")
        tab.fill("#key", token)
        tab.press("#key", "Enter")
        tab.wait_for_selector("#films .card")
        becomes(tab, "document.querySelector('#films img').naturalWidth > 0")
        tab.click("#films .card")
        becomes(tab, "document.getElementById('player').readyState > 0")
        assert ask(tab) == "4821"
        context.close()
