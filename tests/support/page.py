"""The page of a server in a real browser: Chromium, driven by playwright. Knows no claim."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = Path("/usr/bin/chromium")
QUESTION = "What is the code on the card?"
SIZES = ((1280, 900), (390, 844))


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser with a camera of its own. Skips the test where there is none."""
    if not CHROMIUM.exists():
        pytest.skip(f"there is no {CHROMIUM}; install the system's Chromium to drive the page")
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="the package playwright drives the browser"
    )
    with playwright.sync_playwright() as driver:
        flags = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required",
                 "--use-fake-device-for-media-stream",
                 "--use-fake-ui-for-media-stream"]  # fmt: skip
        started = driver.chromium.launch(executable_path=str(CHROMIUM), args=flags)
        yield started
        started.close()


class Tabs:
    """Opens tabs at a server, each of a visitor of their own. `wrong` has errors of scripts, and
    requests that go elsewhere."""

    def __init__(self, browser: Any, address: str) -> None:
        self.wrong: list[str] = []
        self._browser, self._address = browser, address
        self._contexts: list[Any] = []

    def open(self, path: str = "/", size: tuple[int, int] = SIZES[0], **more: Any) -> Any:
        """A tab that shows a path."""
        viewport = {"width": size[0], "height": size[1]}
        context = self._browser.new_context(viewport=viewport, **more)
        self._contexts.append(context)
        tab = context.new_page()
        tab.on("pageerror", lambda error: self.wrong.append(str(error)))
        own = (self._address, "blob:", "data:")
        tab.on("request", lambda request: self._check(request.url, own))
        tab.goto(self._address + path)
        return tab

    def _check(self, url: str, own: tuple[str, ...]) -> None:
        if not url.startswith(own):
            self.wrong.append(url)

    def close(self) -> None:
        """Close all tabs. Fails on what was wrong in one of them."""
        for context in self._contexts:
            context.close()
        assert self.wrong == []


def until(is_so: Callable[[], bool], seconds: float = 60.0) -> None:
    ends = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < ends
        time.sleep(0.1)


def becomes(tab: Any, expression: str) -> None:
    """Wait until JavaScript says so. playwright's own wait compiles in the page, which its policy
    forbids."""
    until(lambda: bool(tab.evaluate(expression)))


def ask(tab: Any, text: str = QUESTION) -> str:
    """Ask with Enter, and wait for the whole answer."""
    count = tab.locator(".turn").count()
    tab.fill("#question", text)
    tab.press("#question", "Enter")
    tab.wait_for_selector(f".turn >> nth={count}")
    tab.wait_for_selector(f".turn >> nth={count} >> .said:not(.running)", timeout=60_000)
    said: str = tab.locator(".turn .said").nth(count).inner_text()
    return said


def reach(tab: Any, selector: str) -> None:
    """Go to an element with the key Tab."""
    for _ in range(80):
        if tab.evaluate("s => document.activeElement.matches(s)", selector):
            return
        tab.keyboard.press("Tab")
    raise AssertionError(f"{selector} cannot be reached with Tab")


def played(tab: Any) -> float:
    """Seconds that the player is at."""
    seconds: float = tab.evaluate("document.getElementById('player').currentTime")
    return seconds


def pictured(tab: Any, name: str) -> None:
    """Keep a screenshot where REELBANK_SCREENSHOTS says."""
    folder = os.environ.get("REELBANK_SCREENSHOTS")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        tab.wait_for_timeout(1200)
        tab.screenshot(path=str(Path(folder) / f"{name}.png"), full_page=True)
