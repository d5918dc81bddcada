"""Law 6: what a bank holds in memory stays within its budgets, however long the stream."""

import pytest

from tests.measure.long_stream import DEVICE, MB, RAM, draw, stream


def test_budgets_hold_over_ten_minutes(tmp_path):
    curve = stream(tmp_path / "bank", 1 / 6, samples=5)  # compares after every segment
    draw(curve, tmp_path / "stream.png")
    assert (tmp_path / "stream.png").stat().st_size > 10_000 and len(curve.hours) == 5
    assert curve.ram[-1] > 0 and curve.device[-1] > 0  # or there is nothing to hold


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_budgets_hold_over_a_day(tmp_path):
    curve = stream(tmp_path / "bank", 24)
    # full
    assert (
        max(curve.device) > 0.95 * DEVICE
        and max(map(sum, zip(curve.index, curve.ram, strict=True))) > 0.95 * RAM
    )
    first = next(i for i, hours in enumerate(curve.hours) if hours >= 1)
    # beside the budgets: times and token counts of frames, numbers of segments, and the memory
    # of SQLite and FAISS
    assert curve.process[-1] - curve.process[first] < RAM + DEVICE + 60 * MB
