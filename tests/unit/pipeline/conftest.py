"""The embedded model for tests of live sessions."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.build import build_backbone, build_qa
from pipeline.config.compose import compose
from pipeline.qa import VideoQA


@pytest.fixture(scope="module")
def embedded():
    """The embedded model, loaded once; each test has a bank of its own."""
    config = compose("ask", ["video=x", "question=x"])
    backbone = build_backbone(config)

    @contextmanager
    def opened(bank: Path, *overrides: str) -> Iterator[VideoQA]:
        qa = build_qa(
            compose("ask", ["video=x", "question=x", f"bank={bank}", *overrides]), backbone
        )
        with qa.bank:
            yield qa

    return opened
