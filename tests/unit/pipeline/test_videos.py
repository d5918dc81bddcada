"""Which videos of a bank are meant, and in which order."""

import pytest

from encoders.errors import UserError
from encoders.schema import VideoInfo
from memory.storage.catalog import VideoRow
from pipeline.videos import every_id


def row(video_id: str, path: str) -> VideoRow:
    return VideoRow(VideoInfo(video_id, path, 4.0, "shown:pyav"), 1.0, finished=True)


def test_every_video_in_the_order_of_the_paths() -> None:
    rows = [row("1", "/films/b.mp4"), row("3", "/films/a.mp4"), row("2", "/films/a.mp4")]
    assert every_id(rows, "bank") == ["2", "3", "1"]
    with pytest.raises(UserError, match="bank bank holds no video"):
        every_id([], "bank")
