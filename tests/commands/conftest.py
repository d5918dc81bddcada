"""Fixtures of the tests of pages: a real browser."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.page import chromium


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started
