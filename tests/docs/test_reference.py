"""The generated pages of docs/reference say what the code says."""

import pytest

from pipeline.commands import reference
from tests.support.paths import ROOT

NAMES = ("settings.md", "options.md", "backbones.md", "cli.md", "layout.md", "python-api.md")


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return reference.pages()


@pytest.mark.parametrize("name", NAMES)
def test_a_generated_page_is_fresh(pages: dict[str, str], name: str) -> None:
    text = (ROOT / "docs" / "reference" / name).read_text(encoding="utf-8")
    assert text == pages[name], f"docs/reference/{name} is stale; run `make reference`"


def test_every_generated_page_is_checked(pages: dict[str, str]) -> None:
    assert set(pages) == set(NAMES)
