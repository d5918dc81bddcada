"""Records of the write path that hold a rule: the id of a part of a video."""

import pytest

from encoders.schema import VideoPart


@pytest.mark.parametrize(
    ("part", "video_id"),
    [
        (VideoPart("0a1b"), "0a1b"),
        (VideoPart("0a1b", 3.0), "0a1b-from-3"),
        (VideoPart("0a1b", 0.0, 7.5), "0a1b-to-7.5"),
        (VideoPart("0a1b", 1e-05, 1e16), "0a1b-from-1e-05-to-1e+16"),
        (VideoPart("live-kitchen"), "live-kitchen"),
        (VideoPart("door-to-door"), "door-to-door"),
    ],
)
def test_the_id_of_a_part_is_read_as_it_is_written(part: VideoPart, video_id: str) -> None:
    assert str(part) == video_id and VideoPart.parse(video_id) == part
