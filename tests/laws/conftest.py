"""Films for the laws: one of three segments, and one of many."""

from pathlib import Path

import numpy as np
import pytest

from tests.support.qa import scenes
from tests.support.videos import write_video


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 s, every picture another."""
    path = tmp_path_factory.mktemp("film") / "a.mp4"
    write_video(path, 20, 5)
    return path


@pytest.fixture(scope="module")
def long_film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """42 s of scenes with a variable frame rate, so that sampled frames are not evenly spaced."""
    path = tmp_path_factory.mktemp("film") / "long.mp4"
    times = np.cumsum(np.random.default_rng(0).uniform(0.1, 0.35, 400))
    write_video(path, 42, times=[0.0, *times[times < 42].round(3).tolist()], paint=scenes)
    return path
