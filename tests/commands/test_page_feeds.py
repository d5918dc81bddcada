"""What a visitor of the page has watched: films as they play, a browser's camera, addresses.

A real server, the embedded model, real films and streams, Chromium.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from pipeline.server.app import Service
from tests.support.page import (
    QUESTION,
    Tabs,
    ask,
    becomes,
    pictured,
    played,
    reach,
    until,
)
from tests.support.serving import SIZE, film, serving
from tests.support.sessions import world
from tests.support.streams import Sender
from tests.support.videos import write_video

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    film(folder / "card.mp4", "code:4821@1", seconds=24.0)
    film(folder / "star.mp4", "shape:red star@8", seconds=16.0, seed=5)
    return folder


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Service]]:
    with serving(tmp_path, "hosts=[127.0.0.1]") as both:
        yield both


@pytest.fixture
def tabs(server: tuple[str, Service], browser: Any) -> Iterator[Tabs]:
    opened = Tabs(browser, server[0])
    yield opened
    opened.close()


def watch(tab: Any, path: Path, speed: str = "1") -> None:
    """Hand a film in, and watch it as it plays."""
    tab.wait_for_selector("#sources:not([hidden])")
    tab.select_option("#speed", speed)
    tab.set_input_files("#file", path)
    # a short film may be over by then
    tab.wait_for_selector("#figures dt:text-is('State')", timeout=60_000)


def figure(tab: Any, name: str) -> str:
    text: str = tab.locator(f"#figures div:has(dt:text-is('{name}')) dd").inner_text()
    return text


def play_on(tab: Any, second: int) -> None:
    """Wait until the player is behind this second, and the server too: a busy machine falls
    behind."""
    until(lambda: played(tab) > second and figure(tab, "Seen") >= f"00:{second:02d}")


def test_a_film_is_asked_about_while_it_plays_and_the_player_jumps_to_the_cited_moment(tabs, films):
    tab = tabs.open()
    watch(tab, films / "card.mp4")
    play_on(tab, 4)  # the card is over
    assert ask(tab) == "4821"
    assert figure(tab, "State") == "watching"  # it still runs
    cited = tab.locator(".turn.newest .cite").first
    start, end = float(cited.get_attribute("data-start")), float(cited.get_attribute("data-end"))
    assert start < 3 and end > 1  # the card's two seconds
    tab.wait_for_selector("#track .cited", state="attached")
    tab.wait_for_selector("#track .read", state="attached")
    pictured(tab, "page")
    cited.click()
    until(lambda: start <= played(tab) <= end + 0.5)
    assert tab.locator(".thumb.hot").count() >= 1
    assert ask(tab, "And after that?") != "4821"  # a follow-up, about what came later
    note = tab.locator(".turn.newest .note").first.inner_text()
    assert note.startswith("Understood as: What is the code on the card? (from 00:0")
    assert tab.locator("#track .cited").count() == 0
    tab.locator(".turn").first.focus()
    tab.keyboard.press("Enter")  # the first answer again
    tab.wait_for_selector("#track .cited", state="attached")
    until(lambda: figure(tab, "On disk") != "0 kB")
    tab.click("#stop")
    becomes(tab, "document.querySelector('#figures dd').textContent === 'stopped'")
    assert ask(tab) == "4821"  # what was seen can still be asked about


def test_a_played_film_ends_in_the_bank_as_one_that_was_encoded(tabs, films, server, tmp_path):
    """The same bytes, and no second writer while it plays."""
    address, service = server
    tab = tabs.open()
    watch(tab, films / "card.mp4")
    (video,) = httpx.get(f"{address}/v1/videos").json()["data"]
    file = {"type": "file", "file": {"file_id": video["file_id"]}}
    content = [file, {"type": "text", "text": QUESTION}]
    body = {"model": "reelbank", "messages": [{"role": "user", "content": content}]}
    refused = httpx.post(f"{address}/v1/chat/completions", json=body, timeout=60)
    assert refused.status_code == 409 and "stream:" in refused.json()["error"]["message"]
    again = httpx.post(f"{address}/v1/videos/{video['id']}/play", json={"speed": 1})
    assert (again.status_code, again.json()["error"]["message"]) == (
        409, "card.mp4 is being watched already; stop that first.",
    )  # fmt: skip
    tab.click("#stop")
    tab.wait_for_selector("#play-row:not([hidden])")
    tab.select_option("#play-speed", "0")
    tab.click("#play")
    until(lambda: httpx.get(f"{address}/v1/videos/{video['id']}").json()["encoded"] == 1)
    becomes(tab, "document.querySelector('#figures dd').textContent === 'all seen'")
    with serving(tmp_path / "other") as (other, second):
        with (films / "card.mp4").open("rb") as opened:
            sent = httpx.post(
                f"{other}/v1/files", files={"file": ("card.mp4", opened)}, timeout=60
            ).json()
        until(lambda: httpx.get(f"{other}/v1/files/{sent['id']}").json()["encoded"] == 1)
        mine, theirs = (
            [
                (row.number, row.start, row.end, path.read_bytes())
                for row in qa.bank.catalog.segments(video["id"])
                for path in [
                    qa.bank.root / "segments" / video["id"] / f"{row.number:06d}.safetensors"
                ]
            ]
            for qa in (service.qa, second.qa)
        )
    assert len(mine) > 1 and mine == theirs
    assert httpx.delete(f"{address}/v1/files/{video['file_id']}").status_code == 200
    assert httpx.get(f"{address}/v1/videos").json()["data"] == []


def test_an_alert_is_told_once_when_it_is_shown_and_leads_there(tabs, films):
    tab = tabs.open()
    watch(tab, films / "star.mp4")
    tab.fill("#request", "a dog barks")
    tab.press("#request", "Enter")
    becomes(tab, "document.getElementById('refused').textContent.includes('does not know')")
    tab.fill("#request", "a red star appears")
    tab.press("#request", "Enter")
    tab.wait_for_selector("#requests li")
    tab.wait_for_selector("#notices li", timeout=60_000)
    becomes(tab, "document.querySelector('#figures dd').textContent === 'all seen'")
    assert tab.locator("#notices li").count() == 1
    assert tab.inner_text("#notices li").startswith("star.mp4: a red star appears")
    tab.click("#notices .cite")
    until(lambda: abs(played(tab) - 9) < 2.5)
    tab.click("#requests button")
    becomes(tab, "!document.querySelector('#requests li')")


def test_the_page_works_from_the_keyboard_alone_and_names_everything(tabs, films):
    tab = tabs.open()
    tab.wait_for_selector("#sources:not([hidden])")
    tab.select_option("#speed", "1")
    tab.locator("h1 a").focus()
    # before the way to the button: Chromium handles keys before what the driver says, so a chooser
    # that is expected just before Enter may open unseen while the page is busy
    with tab.expect_file_chooser() as chooser:
        reach(tab, "#pick")
        tab.keyboard.press("Enter")
    chooser.value.set_files(films / "card.mp4")
    tab.wait_for_selector("#stage:not([hidden]) #stop:not([hidden])", timeout=60_000)
    play_on(tab, 6)
    reach(tab, "#question")
    tab.keyboard.type(QUESTION)
    tab.keyboard.press("Enter")
    tab.wait_for_selector(".turn.newest .cite", timeout=60_000)
    tab.locator(".turn.newest").focus()
    reach(tab, ".cite")
    # where one is can be seen
    assert tab.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    before = played(tab)
    tab.keyboard.press("Enter")
    until(lambda: played(tab) < before)
    unnamed = tab.evaluate("""[...document.querySelectorAll('button, input, select, video')]
        .filter(e => e.offsetParent && !e.labels?.length)
        .filter(e => !e.getAttribute('aria-label') && !e.textContent.trim())
        .map(e => e.outerHTML.slice(0, 80))""")
    assert unnamed == []


def test_a_phone_shows_all_of_it_in_order(tabs, films):
    tab = tabs.open("/", (390, 844), device_scale_factor=2, is_mobile=True, has_touch=True)
    watch(tab, films / "card.mp4")
    play_on(tab, 6)
    assert ask(tab) == "4821"
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    tops = [
        tab.locator(name).bounding_box()["y"]
        for name in ("#player", "#link", "#track", "#talk", "#send", "#figures")
    ]
    assert tops == sorted(tops)
    names = "#stop, #question, #send, #summarize"  # the Tab key follows the order of the document
    order = tab.evaluate("s => [...document.querySelectorAll(s)].map(e => '#' + e.id)", names)
    assert order == names.split(", ")
    small = tab.evaluate(
        "[...document.querySelectorAll('button, select, a.act')].filter(b => b.offsetParent && "
        "b.offsetHeight < 30).map(b => b.outerHTML.slice(0, 80))"
    )
    assert small == []
    pictured(tab, "page-phone")
    tab.locator(".turn.newest .cite").first.tap()
    until(lambda: played(tab) < 5)


def test_a_browsers_camera_is_watched_and_looked_back_at_by_everybody(tabs, server):
    tab = tabs.open()
    tab.wait_for_selector("#sources:not([hidden])")
    tab.click("#camera")
    becomes(tab, "document.getElementById('title').textContent.startsWith('camera-')")
    tab.wait_for_selector("#badge:has-text('Live')")
    becomes(tab, "document.getElementById('still').naturalWidth > 0")
    becomes(tab, "document.querySelectorAll('.thumb').length >= 2")
    other = tabs.open("/live")  # somebody else, at the same time
    other.wait_for_selector("#screens .card img:not([hidden])")
    assert ask(tab)  # the picture of the browser's fake camera is not of this model's world
    assert tab.locator(".turn.newest .said.done").count() == 1
    tab.locator(".thumb").first.click()
    becomes(tab, "document.getElementById('still').alt.startsWith('Picture at')")
    pictured(tab, "camera")
    tab.click("#back")
    becomes(tab, "document.getElementById('still').alt === 'Live picture'")
    tab.click("#stop")
    becomes(tab, "document.querySelector('#figures dd').textContent === 'stopped'")
    (video,) = httpx.get(f"{server[0]}/v1/videos").json()["data"]
    assert video["stream"]["state"] == "stopped" and video["duration"] > 1


def test_a_browser_that_is_closed_ends_its_camera(tabs, server):
    tab = tabs.open()
    tab.wait_for_selector("#sources:not([hidden])")
    tab.click("#camera")
    tab.wait_for_selector("#badge:has-text('Live')")
    tab.goto("about:blank")
    tabs.wrong.clear()  # of going there

    def state() -> str:
        (video,) = httpx.get(f"{server[0]}/v1/videos").json()["data"]
        return str(video["stream"]["state"])

    until(lambda: state() == "stopped")


def test_a_file_that_the_browser_cannot_play_is_shown_in_pictures(tabs, films):
    write_video(films / "old.avi", 8, 5, codec="mpeg4", size=SIZE)
    tab = tabs.open()
    watch(tab, films / "old.avi", "0")
    becomes(tab, "document.getElementById('told').textContent.includes('cannot play')")
    becomes(tab, "document.getElementById('still').naturalWidth > 0")
    tab.wait_for_selector(".thumb")
    tab.locator(".thumb").first.click()
    becomes(tab, "document.getElementById('still').alt.startsWith('Picture at')")


def test_an_address_is_watched_asked_about_and_looked_back_at(tabs, server):
    paint = world("code:4821@2")
    tab = tabs.open()
    tab.wait_for_selector("#sources:not([hidden])")
    tab.fill("#address", "rtsp://10.0.0.1/x")
    tab.press("#address", "Enter")
    becomes(tab, "document.getElementById('told').textContent.includes('not take streams from')")
    with Sender(lambda at: paint(at % 8)) as sender:
        tab.fill("#address", sender.url)
        tab.press("#address", "Enter")
        becomes(tab, "document.getElementById('still').alt === 'Live picture'")
        becomes(tab, "document.getElementById('clock').textContent > '00:11'")
        assert ask(tab) == "4821"
        assert tab.locator("#badge").inner_text() == "Live"
        tab.locator(".turn.newest .cite").first.click()
        becomes(tab, "document.getElementById('still').alt.startsWith('Picture at')")
        pictured(tab, "stream")
        tab.click("#back")
        becomes(tab, "document.getElementById('still').alt === 'Live picture'")
        tab.click("#stop")
        tab.wait_for_selector("#library:not([hidden])")
        assert httpx.get(f"{server[0]}/v1/streams").json()["data"] == []


def test_films_come_with_their_progress_and_a_bad_one_is_told(tabs, films, tmp_path):
    (tmp_path / "bad.mp4").write_bytes(b"no video " * 99)
    tab = tabs.open()
    tab.wait_for_selector("#sources:not([hidden])")
    tab.set_input_files("#file", [tmp_path / "bad.mp4", films / "star.mp4"])
    tab.wait_for_selector("#uploads li >> nth=1 >> text=is in the bank", timeout=60_000)
    rows = tab.locator("#uploads li")
    assert "bad.mp4 is not a video" in rows.nth(0).inner_text()
    assert rows.nth(1).locator("progress").evaluate("each => each.value") == 1
    assert tab.locator("#films .name").all_inner_texts() == ["star.mp4"]


def test_what_people_write_is_text_and_no_markup(tabs, films, tmp_path):
    markup = "<img src=x onerror=alert(1)>"
    path = tmp_path / f"{markup}.mp4"
    path.write_bytes((films / "card.mp4").read_bytes())
    tab = tabs.open()
    watch(tab, path)
    until(lambda: played(tab) > 1)
    ask(tab, markup)
    assert tab.locator(".asked").inner_text() == markup
    assert tab.inner_text("#title") == path.name
    assert tab.locator("img[src='x']").count() == 0
