"""One clock for everything in a file: recordings that were joined, sound that begins first, stray
stamps. The tests compute every expected time by hand.
"""

import pytest

from encoders.sources.timeline import Timeline, TimelinePart

JOINED = Timeline(
    (
        TimelinePart(0, 900, stream_start=1.4, start=0.0, seconds=10.0),
        TimelinePart(1100, 2000, stream_start=1.4, start=10.0, seconds=9.0),
        TimelinePart(2200, 3000, stream_start=50.0, start=19.0, seconds=5.0),
    ),
    24.0,
)


@pytest.mark.parametrize(
    ("stream_time", "byte", "seconds"),
    [
        (1.4, 0, 0.0),
        (3.4, 500, 2.0),
        (3.4, 1500, 12.0),
        (51.0, 2500, 20.0),
        (3.4, None, 2.0),  # the first that fits
        (51.0, -1, 20.0),
        # sound between the last picture of a part and the first of the next
        (11.3, 1000, 9.9),
        (50.1, 2100, 19.1),
        (0.4, 10, -1.0),
    ],
)
def test_seconds(stream_time: float, byte: int | None, seconds: float) -> None:
    assert JOINED.seconds(stream_time, byte) == pytest.approx(seconds)


def test_stream_time_is_the_inverse() -> None:
    for seconds in (0.0, 5.0, 9.99, 10.0, 15.0, 23.0):
        stream_time, byte = JOINED.stream_time(seconds)
        assert JOINED.seconds(stream_time, byte + 1) == pytest.approx(seconds)
    assert JOINED.restarts
