"""Films of a big cat: a photograph that comes with gradio stands in for footage."""

import math
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.videos import write_video


def photograph() -> Image.Image:
    """A big cat."""
    spec = find_spec("gradio")
    if spec is None or spec.origin is None:
        pytest.skip("gradio is not installed")
    path = Path(spec.origin).parent / "test_data" / "cheetah2.jpg"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    with Image.open(path) as picture:
        return picture.convert("RGB")


def write_cat(
    path: Path, seconds: float, start: float = 0.0, end: float = math.inf, *, whole: bool = False
) -> None:
    """A grey film of five pictures a second; the cat is in its right half from start to end.

    whole: it fills the picture.
    """
    cat = np.asarray(photograph().resize((480, 270) if whole else (240, 240)))

    def paint(number: int, at: float) -> np.ndarray:
        frame = np.full((270, 480, 3), 128, np.uint8)
        if start <= at < end and whole:
            return cat
        if start <= at < end:
            frame[15:255, 230:470] = cat
        return frame

    write_video(path, seconds, 5, size=(480, 270), paint=paint)
