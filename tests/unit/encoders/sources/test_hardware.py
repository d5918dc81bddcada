"""Decoding by a device: the same frames as by software, or one clear sentence."""

from pathlib import Path

import av
import numpy as np
import pytest

from encoders.errors import UserError
from encoders.schema import Frames, join_frames
from encoders.sources.decoding.hardware import device_decoder
from encoders.sources.file import FileSource
from tests.support.videos import write_video


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "a.mp4"
    write_video(path, 4, 5)
    return path


def frames(film: Path, hwaccel: str) -> Frames:
    return join_frames(list(FileSource(film, width=32, height=32, hwaccel=hwaccel).frames()))


def has_device(codec: str) -> bool:
    return device_decoder("auto", codec) is not None


def test_a_device_gives_the_frames_of_software(film: Path) -> None:
    software, either = frames(film, "none"), frames(film, "auto")
    assert np.array_equal(software.pixels, either.pixels)
    assert np.array_equal(software.times, either.times)


def test_what_is_not_there_is_one_sentence(film: Path) -> None:
    with pytest.raises(UserError, match=r"source.hwaccel=gpu is unknown; use one of none, auto"):
        frames(film, "gpu")
    with av.open(str(film)) as container:
        codec = container.streams.video[0].codec_context.name
    if has_device(codec):
        pytest.skip("there is a device")
    with pytest.raises(UserError, match=f"hwaccel=cuda finds no device here that decodes {codec}"):
        frames(film, "cuda")
