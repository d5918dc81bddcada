"""The demo page in a real browser: Chromium, driven by playwright. Knows no claim."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = Path("/usr/bin/chromium")
QUESTION = "What is the code on the card?"
BOX = "#question textarea"


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


def ask(tab: Any, text: str = QUESTION) -> str:
    """Type a question, send it with Enter, wait for the whole answer."""
    before = tab.locator(".turn").count() and tab.get_attribute(".turn.newest", "data-id")
    tab.fill(BOX, text)
    tab.press(BOX, "Enter")
    tab.wait_for_selector(f".turn.newest:not([data-id='{before}']) .said:not(.running)")
    said: str = tab.inner_text(".turn.newest .said")
    return said


def pictured(tab: Any, name: str) -> None:
    """Keep a screenshot where REELBANK_SCREENSHOTS says."""
    folder = os.environ.get("REELBANK_SCREENSHOTS")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        tab.wait_for_timeout(1200)
        tab.screenshot(path=str(Path(folder) / f"{name}.png"), full_page=True)
