"""The fixture film: no frame shows another picture than its time says, in any codec, container, GOP
structure and rate; no picture that is left out changes one that is given; and a pass from the
middle, by several workers, gives the bytes of a whole pass.
"""

from pathlib import Path

import av
import numpy as np
import pytest

from encoders.schema import join_frames
from encoders.sources.container import inspect
from encoders.sources.file import FileSource
from encoders.sources.pictures import pictures_at
from tests.support.fixture_film import RECIPES, Recipe, shown
from tests.support.videos import read_number, read_numbers

_FPS = (0.7, 2.0, 7.0)


def test_there_are_enough() -> None:
    assert len({str(recipe) for recipe in RECIPES}) == len(RECIPES) >= 80
    assert sum(recipe.is_quick for recipe in RECIPES) == 13


@pytest.mark.parametrize("name", ["libx264-open-mp4-25", "libsvtav1-open-mp4-30"])
def test_pictures_are_left_out(tmp_path: Path, name: str) -> None:
    path, _ = next(recipe for recipe in RECIPES if str(recipe) == name).write(tmp_path)
    assert inspect(path).packets.spare.mean() > 0.2


def every_picture(path: Path) -> list[np.ndarray]:
    """All pictures in time order, 64 x 64, of a film whose every packet is decoded."""
    with av.open(str(path)) as film:
        return [
            frame.to_ndarray(width=64, height=64, format="rgb24", interpolation="BILINEAR")
            for frame in film.decode(video=0)
        ]


@pytest.mark.parametrize(
    "recipe",
    [pytest.param(recipe, marks=() if recipe.is_quick else pytest.mark.slow) for recipe in RECIPES],
    ids=str,
)
def test_no_wrong_frame(tmp_path: Path, recipe: Recipe) -> None:
    path, times = recipe.write(tmp_path)
    end = len(times) / float(recipe.rate)
    plain = every_picture(path)
    for fps in _FPS:
        film = FileSource(path, fps, width=64, height=64)
        got = join_frames(list(film.frames()))
        samples = shown(times, end, fps)
        assert read_numbers(got.pixels) == [number for number, _ in samples]
        for (number, _), picture in zip(samples, got.pixels, strict=True):
            assert np.array_equal(picture, plain[number])
        np.testing.assert_allclose(got.times, [time for _, time in samples], atol=2e-3)
        assert film.info.broke_at is None
        assert film.info.note == ""
        assert film.info.duration == pytest.approx(end, abs=0.15)
        for start in (1.1, 2.5, 4.3):
            later = got.times >= start
            runs = list(FileSource(path, fps, width=64, height=64, workers=2).frames(start))
            assert bool(runs) == later.any()
            if runs:
                assert np.array_equal(join_frames(runs).times, got.times[later])
                assert np.array_equal(join_frames(runs).pixels, got.pixels[later])
    seconds = [4.9, 0.5, 2.02]
    for at, picture in zip(seconds, pictures_at(path, seconds, (64, 64)), strict=True):
        assert picture is not None
        # a container may round its times
        assert abs(read_number(picture) - int(at * recipe.rate + 1e-6)) <= 1
