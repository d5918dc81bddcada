"""Pictures of the page: the same ones as are encoded, the way players show them, within bounds."""

import io
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from encoders.sources.live.push_source import PushSource
from encoders.sources.pictures import pictures_at
from pipeline.server.page.pictures import FilePictures
from pipeline.server.streams.live_sources import BrowserSource
from pipeline.server.streams.picture_shelf import PictureShelf
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
    shelf = PictureShelf()
    shelf.show("phone", frame)
    shelf.keep("phone", frame, 0.0)
    source = PushSource("phone", width=32, height=32)
    source.start_clock(0.0)
    source.push(frame, 0.0)
    source.close()
    (encoded,) = source.frames()
    for picture in (shelf.at("phone", 0.0), shelf.newest("phone")):
        assert brightest(decoded(picture)) == brightest(encoded.pixels[0]) == (0, 1)


def test_a_file_that_is_gone_has_no_picture(tmp_path: Path) -> None:
    assert FilePictures(tmp_path / "gone.mp4").at(0.5) is None


def test_all_sources_share_one_bound_and_the_oldest_pictures_go_first() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    probe = PictureShelf()
    probe.keep("a", noise, 0.0)
    shelf = PictureShelf(4 * probe.nbytes)
    for second in range(4):
        shelf.keep("a", noise, float(second))
    assert shelf.at("a", 0.0) is not None and shelf.at("yard", 0.0) is None
    for second in range(3):
        shelf.keep("b", noise, float(second))
    assert shelf.nbytes <= 4 * probe.nbytes
    assert shelf.at("a", 0.5) is None and shelf.at("a", 3.0) is not None
    assert shelf.at("b", 0.0) is not None  # the first one stands for what came before, for 2 s
    assert shelf.newest("a") is None  # that is what arrived, sampled or not
    shelf.show("a", noise[:, ::-1])
    assert shelf.newest("a") not in (None, shelf.at("a", 3.0))
    shelf.forget("a")
    assert shelf.at("a", 3.0) is None and shelf.newest("a") is None
    for second in range(3, 12):
        shelf.keep("b", noise, float(second))
    assert shelf.nbytes == 4 * probe.nbytes and shelf.at("b", 5.0) is None


def test_visitors_who_look_at_once_get_one_conversion_of_the_newest_picture() -> None:
    """Two of the same decoded picture at a time end the process."""
    noise = np.random.default_rng(0).integers(0, 256, (720, 1280, 3), dtype=np.uint8)
    shelf, start = PictureShelf(), threading.Barrier(8)

    def look(_: int) -> bytes | None:
        start.wait(20)
        return shelf.newest("door")

    with ThreadPoolExecutor(8) as visitors:
        for _ in range(3):
            shelf.show("door", av.VideoFrame.from_ndarray(noise, format="rgb24"))
            first, *others = visitors.map(look, range(8))
            assert first is not None and all(jpeg is first for jpeg in others)


def test_a_browser_that_sends_no_picture_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BrowserSource, "gone_s", 0.3)
    source = BrowserSource("camera", 1.0, width=8, height=8)
    source.pictures = PictureShelf()
    source.start_clock(0.0)
    began = time.monotonic()
    assert source.push(np.zeros((8, 8, 3), np.uint8), 0.0)
    assert len(list(source.frames())) == 1  # the stream ends by itself
    assert 0.3 <= time.monotonic() - began < 20
