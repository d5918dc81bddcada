"""The page with a model behind an address, in a real browser: Chromium, a real server of the
page, and a strict one in place of the model.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.chat_server import MODEL, Asked, ChatServer, Reply, chat_server
from tests.support.page import Tabs, ask, becomes, pictured, played, until
from tests.support.serving import film as write_film
from tests.support.serving import serving
from tests.support.toys import toy_parts

pytestmark = pytest.mark.slow


def is_card(asked: Asked) -> bool:
    """Whether the brightness of a card is in a picture."""
    return any(
        sum(one.convert("L").crop((100, 40, 220, 140)).histogram()[200:]) > 1000
        for one in asked.pictures
    )


def answer(asked: Asked) -> Reply:
    if "Answer yes or no" in asked.texts[-1]:
        return Reply("Yes." if is_card(asked) else "No.")
    numbers = [text.split(".")[0] for text in asked.texts if text.endswith(("[00:03]", "[00:04]"))]
    return Reply(f"A bright card.\nSources: {', '.join(numbers)}", piece_s=0.02)


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with chat_server(answer=answer) as running:
        yield running
        assert running.mistakes == []


@pytest.fixture
def page(server: ChatServer, tmp_path: Path, monkeypatch) -> Iterator[str]:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    clip = [part for part in toy_parts() if part.startswith("clip")]
    with serving(tmp_path, "backbone=endpoint", f"backbone.url={server.url}",
                 f"backbone.model={MODEL}", "backbone.tries=1", "source.keep=jpeg",
                 *clip) as (address, _):  # fmt: skip
        yield address


@pytest.fixture
def tab(page: str, browser: Any) -> Iterator[Any]:
    tabs = Tabs(browser, page)
    opened = tabs.open()
    opened.wait_for_selector("#sources:not([hidden])")
    yield opened
    tabs.close()


def test_a_film_is_asked_about_and_watched(tab: Any, server: ChatServer, tmp_path: Path):
    film = write_film(tmp_path / "card.mp4", "code:4821@3", seconds=24.0)
    tab.select_option("#speed", "1")
    tab.set_input_files("#file", film)
    tab.wait_for_selector("#request-form:not([hidden])", timeout=60_000)
    tab.fill("#request", "a bright card")
    tab.press("#request", "Enter")
    until(lambda: played(tab) > 6)
    assert ask(tab, "What is shown?") == "A bright card."
    cited = tab.locator(".turn.newest .cite").first
    assert (cited.get_attribute("data-start"), cited.get_attribute("data-end")) == ("3", "5")
    (question,) = [asked for asked in server.asked if "What is shown?" in asked.texts[-1]]
    assert len(question.pictures) >= 6
    tab.wait_for_selector("#notices li")
    cited.click()
    until(lambda: abs(played(tab) - 4) < 1.6)
    pictured(tab, "endpoint-film")

    server.answer = lambda asked: Reply(status=401, body={"error": {"message": "no"}})
    said = ask(tab, "And now?")
    assert "refuses the key (401)" in said and "OPENAI_API_KEY" in said
    assert tab.locator(".turn.newest .said.failed").count() == 1
    server.answer = answer
    assert ask(tab, "And after that?") == "A bright card."


def test_a_camera_is_asked_about_from_its_thumbnails(tab: Any, page: str, server: ChatServer):
    tab.click("#camera")
    becomes(tab, "document.querySelectorAll('.thumb').length >= 3")
    assert ask(tab, "What is shown?") == "A bright card."
    note = tab.locator(".turn.newest .note").all_inner_texts()
    assert any("Pictures are stored thumbnails, because camera-" in text for text in note)
    assert {max(picture.size) for picture in server.asked[-1].pictures} == {480}
    pictured(tab, "endpoint-camera")
    (video,) = httpx.get(f"{page}/v1/videos").json()["data"]
    picture = httpx.get(f"{page}/v1/videos/{video['id']}/picture?at=1")
    assert picture.status_code == 200 and picture.content.startswith(b"\xff\xd8")
    tab.click("#stop")
