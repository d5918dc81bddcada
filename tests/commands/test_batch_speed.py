"""A batch that encodes each film once is much faster than encoding for each question."""

from pathlib import Path

import pytest

from tests.measure.batch_speed import measure


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_five_times_faster_than_encoding_for_each_question(tmp_path: Path) -> None:
    speed = measure(tmp_path)
    assert speed.baseline > 5 * speed.batch, speed.sentence()
