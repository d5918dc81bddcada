"""Thumbnails of frames: of files and of live sources, in the film's shape, of bounded size."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from encoders.errors import UserError
from encoders.schema import Frames, join_frames
from encoders.sources.file import FileSource
from encoders.sources.live.push_source import PushSource
from encoders.sources.thumbnail_maker import MOST_BYTES, ThumbnailMaker, jpeg_of, thumbnail_maker
from pipeline.config.compose import compose
from tests.support.videos import numbered, read_number, write_video


def opened(jpeg: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(jpeg)))


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "a.mp4"
    write_video(path, 6, 5, size=(128, 72))
    return path


def frames_of(film: Path, start: float = 0.0, **settings) -> Frames:
    source = FileSource(film, 1.0, width=56, height=56, batch=4, **settings)
    return join_frames(list(source.frames(start)))


def test_each_frame_has_the_picture_that_the_model_sees(film: Path) -> None:
    frames, plain = frames_of(film, keep="jpeg"), frames_of(film)
    assert plain.thumbnails is None and frames.thumbnails is not None
    assert np.array_equal(frames.pixels, plain.pixels)
    seen = [read_number(opened(jpeg)) for jpeg in frames.thumbnails]
    assert seen == [read_number(pixels) for pixels in plain.pixels] and len(set(seen)) == 6


def test_a_pass_from_the_middle_makes_the_same_bytes(film: Path) -> None:
    whole, rest = frames_of(film, keep="jpeg"), frames_of(film, 3.0, keep="jpeg")
    assert whole.thumbnails is not None and rest.thumbnails == whole.thumbnails[3:]
    part = whole.part(1, 3)
    assert part.thumbnails == whole.thumbnails[1:3]


def test_its_size_is_a_dial_and_its_shape_the_films(film: Path) -> None:
    width, height = Image.open(io.BytesIO(_first(frames_of(film, keep="jpeg")))).size
    small = Image.open(io.BytesIO(_first(frames_of(film, keep="jpeg", keep_size=32)))).size
    assert max(small) == 32 and small[0] / small[1] == pytest.approx(width / height, rel=0.05)
    worse = frames_of(film, keep="jpeg", keep_quality=20)
    assert len(_first(worse)) < len(_first(frames_of(film, keep="jpeg")))


def _first(frames: Frames) -> bytes:
    assert frames.thumbnails is not None
    return frames.thumbnails[0]


def test_no_picture_exceeds_its_bytes() -> None:
    """Noise compresses worst."""
    noise = np.frombuffer(os.urandom(480 * 270 * 3), np.uint8).reshape(270, 480, 3)
    sizes = [len(ThumbnailMaker(480, 75, most)(noise)) for most in (200_000, 40_000, 2_000)]
    assert sizes[0] > 40_000 and sizes[1] <= 40_000 and sizes[2] <= 2_000


def test_a_picture_with_much_detail_is_smaller_and_no_worse_than_quality_50() -> None:
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (68, 120, 3), dtype=np.uint8))
    picture = np.asarray(coarse.resize((480, 272), Image.Resampling.BICUBIC))
    whole, less = ThumbnailMaker(480, 75, 10**6)(picture), ThumbnailMaker(480, 75, 10_000)(picture)
    assert len(whole) > 10_000 >= len(less) > 7_000  # nearly as many bytes as it may have
    small = Image.open(io.BytesIO(less))
    width, height = small.size
    assert 160 < width < 480 and width / height == pytest.approx(480 / 272, rel=0.01)
    reference = Image.open(io.BytesIO(jpeg_of(picture, 50)))
    assert small.quantization == reference.quantization  # type: ignore[attr-defined]
    flat = np.full((270, 480, 3), 128, np.uint8)  # fits, so nothing of it is lowered
    assert ThumbnailMaker(480, 75, 10_000)(flat) == jpeg_of(flat, 75)
    assert len(ThumbnailMaker(480, 20, 10_000)(picture)) <= 10_000  # a lower quality stays


def test_the_default_bounds_an_hour() -> None:
    """At a frame a second, in MB of 10^6 bytes."""
    default = compose("ingest", ["video=x", "bank=x", "source.keep=jpeg"]).source["keep_bytes"]
    assert default == MOST_BYTES and 3600 * MOST_BYTES / 1e6 == 36


@pytest.mark.parametrize("decoder", ["auto", "decord"])
def test_pyav_decodes_where_thumbnails_are_kept(film: Path, decoder: str) -> None:
    if decoder == "decord":
        pytest.importorskip("decord")
    source = FileSource(film, 1.0, width=56, height=56, keep="jpeg", decoder=decoder)
    (frames,) = source.frames()
    assert frames.thumbnails is not None and source.info.decoder == "shown:pyav"


def test_a_live_picture_has_one_of_its_own_shape() -> None:
    source = PushSource("page", 1.0, width=56, height=56)
    source.thumbnail = ThumbnailMaker(160, 75, 40_000)
    source.start_clock(0.0)
    for second in range(2):
        source.push(numbered(second, (320, 180)), at=float(second))
    source.close()
    frames = join_frames(list(source.frames()))
    assert frames.thumbnails is not None and frames.pixels.shape == (2, 56, 56, 3)
    assert [opened(jpeg).shape for jpeg in frames.thumbnails] == [(90, 160, 3)] * 2
    assert [read_number(opened(jpeg)) for jpeg in frames.thumbnails] == [0, 1]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (("png", 480, 75, 40_000), "source.keep=png is not known; use none or jpeg"),
        (("jpeg", 4, 75, 40_000), "source.keep_size=4 does not fit; use 16 to 8192"),
        (("jpeg", 480, 99, 40_000), "source.keep_quality=99 does not fit; use 1 to 95"),
        (("jpeg", 480, 75, 10), "source.keep_bytes=10 does not fit"),
    ],
)
def test_dials_that_make_no_picture_are_refused(settings: tuple, said: str) -> None:
    with pytest.raises(UserError, match=said):
        thumbnail_maker(*settings)
