"""A film's plan -> frames: rendered while they stream, or written as a real H.264 file.

The same plan gives the same frames. A plan of 24 hours is a few kilobytes. Knows no question and
no model.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from PIL import Image

from encoders.schema import Frames, VideoInfo
from pipeline.evaluation.needle.films.haystack import Haystack, haystack_of
from pipeline.evaluation.needle.films.looks import show
from pipeline.evaluation.needle.films.schema import Film
from pipeline.needle_world import video

FILE_FPS = 8


def source_second(film: Film, second: float) -> float:
    """Second of the footage at this second of the film; spliced needles stop the footage."""
    stopped = 0.0
    for one in film.shown:
        if film.spliced or one.look == "picture":
            stopped += min(max(second - one.start, 0.0), one.end - one.start)
    return second - stopped


def picture(film: Film, behind: Haystack, second: float) -> Image.Image:
    """The film's picture at this second."""
    result = behind.at(source_second(film, second))
    for one in film.shown:
        if one.start <= second < one.end:
            show(result, one.card, one.look, one.place)
    return result


def fingerprint(film: Film) -> str:
    """16 hex digits over everything that decides the film's frames."""
    text = json.dumps(asdict(replace(film, file="", name="")), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class FilmSource:
    """A `FrameSource` over a plan: the frames at k / fps seconds, rendered on request."""

    def __init__(self, film: Film, fps: float, *, width: int, height: int, batch: int = 16) -> None:
        self._film, self._fps, self._size, self._batch = film, fps, (width, height), batch

    @property
    def info(self) -> VideoInfo:
        return VideoInfo(
            f"film-{fingerprint(self._film)}",
            f"film {self._film.name}",
            self._film.seconds,
            "rendered",
        )

    def frames(self, start: float = 0.0) -> Iterator[Frames]:
        """Batches from `start` seconds on."""
        behind = haystack_of(self._film)
        times = np.arange(np.ceil(self._film.seconds * self._fps)) / self._fps
        times = times[(times >= start) & (times < self._film.seconds)]
        for first in range(0, len(times), self._batch):
            part = times[first : first + self._batch]
            pixels = [
                np.asarray(
                    picture(self._film, behind, float(t)).resize(
                        self._size, Image.Resampling.BILINEAR
                    )
                )
                for t in part
            ]
            yield Frames(self.info.video_id, np.stack(pixels), part)


def is_sampled(film: Film, needle: int, fps: float) -> bool:
    """Whether a frame at this rate shows the needle; if not, no arm can find it."""
    one = film.shown[needle]
    return bool(np.ceil(one.start * fps - 1e-9) / fps < one.end)


def write(film: Film, path: Path, progress: Callable[[float], None] = lambda t: None) -> None:
    """Write the film as an H.264 MP4, which appears under its name when it is complete."""
    behind = haystack_of(film)
    size = (film.width, film.height)
    video.write(
        path,
        (),
        film.seconds,
        lambda t: picture(film, behind, t),
        fps=FILE_FPS,
        size=size,
        progress=progress,
    )
