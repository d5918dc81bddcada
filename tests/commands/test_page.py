"""The page of `reelbank serve` in a real browser: the library, a film, a stream, the conversation.

A real server, the embedded model, real films and streams, Chromium, axe-core.
"""

from collections.abc import Iterator
from typing import Any

import av
import httpx
import pytest

import reelbank
from pipeline.server.access.key import new_key
from pipeline.server.access.key_file import KeyFile
from tests.support.page import SIZES, Tabs, ask, becomes, pictured, played, reach, until
from tests.support.serving import film, serving
from tests.support.sessions import world
from tests.support.streams import Sender
from tests.support.talks import SRT

pytestmark = pytest.mark.slow


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
    tabs = Tabs(browser, address)

    def open_at(path: str = "/", size: tuple[int, int] = SIZES[0], **more: Any) -> Any:
        tab = tabs.open(path, size, **more)
        tab.wait_for_selector(".card", state="attached")
        return tab

    yield open_at
    tabs.close()


def find(tab: Any, words: str) -> None:
    tab.fill("#words", words)
    tab.press("#words", "Enter")
    tab.wait_for_selector("#hits .card", timeout=60_000)


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


def test_two_visitors_at_once_keep_their_own_conversations(opened):
    """Each asks of another film at the same time; a follow-up goes on from their own question."""
    one, two = opened("/"), opened("/")
    for tab, name in ((one, "card.mp4"), (two, "star.mp4")):
        tab.click(f"#films .card:has-text('{name}')")
        tab.wait_for_selector("#stage:not([hidden]) .thumb")
    questions = {one: "What is the code on the card?", two: "What is the name on the card?"}
    for tab, question in questions.items():  # both are under way before one is answered
        tab.fill("#question", question)
        tab.press("#question", "Enter")
    for tab, said in ((one, "4821"), (two, "Alice")):
        tab.wait_for_selector(".turn .said.done", timeout=60_000)
        assert tab.locator(".turn .said").all_inner_texts() == [said]
    for tab in (one, two):
        tab.fill("#question", "And after that?")
        tab.press("#question", "Enter")
    for tab, question in questions.items():
        tab.wait_for_selector(".turn.newest .note >> nth=0", timeout=60_000)
        assert (
            tab.locator(".turn.newest .note")
            .first.inner_text()
            .startswith(f"Understood as: {question} (from ")
        )
        assert tab.locator(".turn .asked").all_inner_texts() == [question, "And after that?"]
    one.click("#fresh")  # the other one's goes on
    assert (one.locator(".turn").count(), two.locator(".turn").count()) == (0, 2)
    assert ask(two, "And before that?") != "" and one.locator(".turn").count() == 0


def test_the_wall_shows_every_stream_with_its_newest_picture_health_and_lag(opened, address):
    tab = opened("/live")
    gate = {"name": "gate", "url": "http://127.0.0.1:9/a.m3u8"}  # nobody listens there
    assert httpx.post(f"{address}/v1/streams", json=gate, timeout=60).status_code == 201
    tab.wait_for_selector("#screens .live.ill")
    assert tab.locator("#screens .name").all_inner_texts() == ["door", "gate"]
    assert tab.locator("#screens .live").all_inner_texts() == ["Live", "Not live"]
    until(lambda: "gives no picture" in tab.locator("#screens .more").nth(1).inner_text())
    assert httpx.delete(f"{address}/v1/streams/gate", timeout=60).status_code == 200
    until(lambda: tab.locator("#screens .name").all_inner_texts() == ["door"])
    tab.wait_for_selector("#screens .card img:not([hidden])")
    assert tab.get_attribute("#to-wall", "aria-current") == "page"
    more = tab.inner_text("#screens .more")
    assert more.startswith("live, ") and more.endswith(" s behind")
    first = tab.get_attribute("#screens img", "src")
    until(lambda: tab.get_attribute("#screens img", "src") != first)
    pictured(tab, "wall")
    tab.click("#screens .card")
    tab.wait_for_selector("#stage:not([hidden]) #badge:not([hidden])")
    tab.go_back()
    tab.wait_for_selector("#wall:not([hidden])")


def test_a_film_has_chapters_a_summary_and_clips(opened, address):
    tab = opened()
    tab.click("#films .card:has-text('star.mp4')")
    tab.wait_for_selector("#stage:not([hidden]) .thumb")
    tab.click("#summarize")
    tab.wait_for_selector("#chapters button")
    assert "granite" in tab.inner_text("#summary")  # a sentence of its subtitles
    tab.locator("#summary .cite").first.click()
    assert "#t=" in tab.url
    assert ask(tab, "What is the name on the card?") == "Alice"
    cite = tab.locator(".turn .cite").first
    start, end = float(cite.get_attribute("data-start")), float(cite.get_attribute("data-end"))
    with tab.expect_download() as download:
        tab.click("#clip")
    path = download.value.path()
    assert download.value.suggested_filename == f"star_00-0{int(start)}.mp4"
    with av.open(str(path)) as container:
        assert abs(container.duration / av.time_base - (end - start)) < 0.2
    pictured(tab, "serve-chapters")


def test_the_library_is_filtered_by_name_kind_and_day(opened):
    tab = opened()

    def names() -> list[str]:
        listed: list[str] = tab.locator("#films .name").all_inner_texts()
        return sorted(listed)

    tab.fill("#only-name", "CARD")
    assert names() == ["card.mp4"]
    assert tab.inner_text("#films-title") == "Films and streams: 1 of 3"
    tab.fill("#only-name", "")
    tab.select_option("#only-kind", "stream")
    assert names() == ["door"]
    tab.select_option("#only-kind", "")
    tab.fill("#since", "2001-01-01")  # nobody knows when the films were
    assert names() == ["door"]
    tab.fill("#until", "2002-01-01")
    assert names() == []
    tab.fill("#since", "")
    tab.fill("#until", "")
    assert names() == ["card.mp4", "door", "star.mp4"]


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
        tab.click("#summarize")
        tab.wait_for_selector("#chapters button")
        assert violations(tab) == []
        assert tab.evaluate("document.documentElement.scrollWidth") <= size[0]
        tab.click("h1 a")
    tab.click("#to-wall")
    tab.wait_for_selector("#screens .card img:not([hidden])")
    assert violations(tab) == []
    assert tab.evaluate("document.documentElement.scrollWidth") <= size[0]
    pictured(tab, f"serve-wall-{size[0]}-{scheme}")
    tab.click("#to-library")
    tab.evaluate("document.querySelector('.top p').style.color = '#777'")
    assert len(violations(tab)) == 1  # too little contrast is seen


def test_the_page_works_from_the_keyboard_alone(opened):
    tab = opened()

    reach(tab, "#words")
    tab.keyboard.type("granite")
    tab.keyboard.press("Enter")
    tab.wait_for_selector("#hits .card", timeout=60_000)
    reach(tab, "#hits .card")
    assert tab.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    tab.keyboard.press("Enter")
    tab.wait_for_selector("#stage:not([hidden]) .thumb")
    for selector in ("#thumbs .thumb", "#lines button", "#question"):
        reach(tab, selector)
    tab.keyboard.type("What is the name on the card?")
    tab.keyboard.press("Enter")
    tab.wait_for_selector(".turn .cite", timeout=60_000)
    tab.locator("#fresh").focus()
    reach(tab, ".turn .cite")
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
