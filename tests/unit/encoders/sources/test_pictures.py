"""Pictures at given seconds: what players show there, upright, from the film's own stream."""

from pathlib import Path

import numpy as np
import pytest

from encoders.sources.pictures import pictures_at
from encoders.sources.still import still
from tests.support.videos import numbered, read_number, turn, write_video


def test_the_picture_that_stands(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mkv", 0, times=[0.0, 1.0, 5.0, 5.5])
    seconds = [6.9, 0.0, 4.9, 1.0, 0.9, -1.0, 5.0]
    pictures = list(pictures_at(tmp_path / "a.mkv", seconds, (64, 64)))
    assert [read_number(one) for one in pictures if one is not None] == [3, 0, 1, 1, 0, 0, 2]


@pytest.mark.parametrize("name", ["a.mp4", "a.ts"])
def test_far_apart(tmp_path: Path, name: str) -> None:
    write_video(tmp_path / name, 8)
    for seconds in ([7.0], [0.04, 7.96], [4.0, 2.0]):
        pictures = pictures_at(tmp_path / name, seconds, (64, 64))
        assert [read_number(one) for one in pictures if one is not None] == [
            round(at * 25) for at in seconds
        ]


@pytest.mark.parametrize(
    ("signs", "corner"),
    [
        ((1, 0, 0, 1), (0, 0)),
        ((0, 1, -1, 0), (0, 1)),
        ((-1, 0, 0, -1), (1, 1)),
        ((0, -1, 1, 0), (1, 0)),
        ((-1, 0, 0, 1), (0, 1)),  # mirrored, as by a front camera
        ((1, 0, 0, -1), (1, 0)),
        ((0, 1, 1, 0), (0, 0)),
        ((0, -1, -1, 0), (1, 1)),
    ],
)
def test_orientation(
    tmp_path: Path, signs: tuple[int, int, int, int], corner: tuple[int, int]
) -> None:
    def paint(number: int, time: float) -> np.ndarray:
        picture = np.zeros((64, 128, 3), dtype=np.uint8)
        picture[:32, :64] = 255  # the top left quarter
        return picture

    write_video(tmp_path / "a.mp4", 0.2, size=(128, 64), paint=paint)
    turn(tmp_path / "a.mp4", signs)
    (picture,) = pictures_at(tmp_path / "a.mp4", [0.0], 64)
    assert picture is not None
    assert picture.shape == ((64, 32, 3) if not signs[0] else (32, 64, 3))
    height, width = picture.shape[0] // 2, picture.shape[1] // 2
    quarters = {
        (row, column): picture[row * height :, column * width :][:height, :width].mean()
        for row in (0, 1)
        for column in (0, 1)
    }
    assert max(quarters, key=lambda quarter: quarters[quarter]) == corner


def test_a_file_that_is_gone_has_no_still(tmp_path: Path) -> None:
    assert still(str(tmp_path / "a.mp4"), 1.0) is None
    write_video(tmp_path / "a.mp4", 1, paint=lambda number, time: numbered(number, (64, 64)))
    assert still(str(tmp_path / "a.mp4"), 100.0) is not None
