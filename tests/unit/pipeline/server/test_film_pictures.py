"""Pictures of the demo page: the same ones as are encoded, the way players show them."""

import io
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from encoders.sources.live.push_source import PushSource
from encoders.sources.pictures import pictures_at
from pipeline.server.page.pictures import FilePictures, LivePictures
from tests.support.videos import turn, write_video

LYING, MIRRORED = (0, 1, -1, 0), (-1, 0, 0, 1)


def corner(number: int, time: float) -> np.ndarray:
    """128 x 64, with a bright top left quarter from 1 s on."""
    picture = np.zeros((64, 128, 3), dtype=np.uint8)
    picture[:32, :64] = 255 if time >= 1 else 0
    return picture


@pytest.fixture(params=[LYING, MIRRORED], ids=["lying", "mirrored"])
def phone(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A film that players turn or mirror, so that the bright quarter comes to the top right."""
    write_video(tmp_path / "a.mp4", 2, 5, size=(128, 64), paint=corner)
    turn(tmp_path / "a.mp4", request.param)
    return tmp_path / "a.mp4"


def brightest(picture: np.ndarray) -> tuple[int, int]:
    """Row and column of the brightest quarter."""
    rows, columns = picture.shape[0] // 2, picture.shape[1] // 2
    quarters = {
        (row, column): picture[row * rows :, column * columns :][:rows, :columns].mean()
        for row in (0, 1)
        for column in (0, 1)
    }
    return max(quarters, key=lambda quarter: quarters[quarter])


def decoded(jpeg: bytes | None) -> np.ndarray:
    assert jpeg is not None
    return np.asarray(Image.open(io.BytesIO(jpeg)))


def test_pictures_of_a_file_stand_upright(phone: Path) -> None:
    (player,) = pictures_at(phone, [1.4], 480)
    assert player is not None
    shown = decoded(FilePictures(phone).at(1.4))
    assert shown.shape == player.shape and brightest(shown) == brightest(player) == (0, 1)
    assert decoded(FilePictures(phone).at(0.9)).max() < 100  # before the quarter


def test_pictures_of_a_stream_stand_upright(phone: Path) -> None:
    with av.open(str(phone)) as file:
        frame = list(file.decode(video=0))[-1]
    live = LivePictures()
    live.add(frame, 0.0, True)
    source = PushSource("phone", width=32, height=32)
    source.start_clock(0.0)
    source.push(frame, 0.0)
    source.close()
    (encoded,) = source.frames()
    assert brightest(decoded(live.at(0.0))) == brightest(encoded.pixels[0]) == (0, 1)


def test_what_is_not_there_any_more_comes_from_the_bank(tmp_path: Path) -> None:
    """A file that was deleted, and moments of a stream before the first picture in memory."""
    stored = {0.5: b"first", 3.0: b"later"}
    assert FilePictures(tmp_path / "gone.mp4", stored.get).at(0.5) == b"first"
    assert FilePictures(tmp_path / "gone.mp4").at(0.5) is None
    live = LivePictures(stored.get)
    live.add(np.zeros((8, 8, 3), np.uint8), 9.0, True)
    assert live.at(3.0) == b"later" and live.at(2.0) is None
    assert live.at(9.5) is not None and live.at(9.5) != b"later"
