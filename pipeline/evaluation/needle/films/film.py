"""A film's plan -> frames: rendered while they stream, or written as a real H.264 file.

The same plan gives the same frames. A plan of 24 hours is a few kilobytes. Knows no question and
no model.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from encoders.schema import Frames, VideoInfo
from pipeline.evaluation.needle.films import looks, sound
from pipeline.evaluation.needle.films.haystack import haystack_of
from pipeline.evaluation.needle.films.own_needles import OwnPictures
from pipeline.evaluation.needle.films.schema import Appearance, Film, plain
from pipeline.needle_world import video
from pipeline.needle_world.cards import Placement

FILE_FPS = 8


def source_second(film: Film, second: float) -> float:
    """Second of the footage at this second of the film; spliced needles stop the footage."""
    stopped = 0.0
    for one in film.shown:
        is_seen = one.card.kind not in looks.UNSEEN
        if is_seen and (film.spliced or one.look == "picture"):
            stopped += min(max(second - one.start, 0.0), one.end - one.start)
    return second - stopped


def fingerprint(film: Film) -> str:
    """16 hex digits over everything that decides the film's frames."""
    text = json.dumps(plain(replace(film, file="", name="")), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class FilmPictures:
    """The pictures of a film at any second."""

    def __init__(self, film: Film) -> None:
        """UserError when a file of the footage or of a needle is not what it was."""
        self._film, self._behind = film, haystack_of(film)
        is_grey = film.footage[:1] == ("grey",)
        # what a grey film hides; the pictures of its moments still come from there
        self._footage = (
            haystack_of(replace(film, footage=film.footage[1:])) if is_grey else self._behind
        )
        self._own = OwnPictures(one.card for one in film.shown)

    def at(self, second: float) -> Image.Image:
        """The picture at this second."""
        film = self._film
        result = self._background(source_second(film, second))
        for one in film.shown:
            if one.start <= second < one.end:
                self._draw(result, one, second)
        return result

    def _background(self, second: float) -> Image.Image:
        n = self._film.stitched
        if n == 1:
            return self._behind.at(second)
        # each picture of the grid is as far from the others as the film is long
        cells = [self._behind.at(second + i * self._film.seconds) for i in range(n * n)]
        return looks.stitch(cells, n, (self._film.width, self._film.height))

    def _draw(self, picture: Image.Image, one: Appearance, second: float) -> None:
        at = _place_at(one, second)
        if one.card.kind in ("picture", "clip"):
            looks.paste(picture, self._own.at(one.card, second - one.start), at)
        elif one.card.kind == "thumbnails":
            moments = [self._footage.at(float(text)) for text in one.card.text.split()]
            looks.thumbnails(picture, moments, at)
        elif one.card.kind == "footage" and self._footage is not self._behind:
            looks.paste(picture, self._footage.at(float(one.card.text)), at)
        else:
            looks.show(picture, one.card, one.look, at)


def _place_at(one: Appearance, second: float) -> Placement:
    """Where a needle is; one that moves does so at a steady speed."""
    if one.to is None:
        return one.place
    share = (second - one.start) / (one.end - one.start)
    x, y = (
        begin + share * (end - begin)
        for begin, end in ((one.place.x, one.to.x), (one.place.y, one.to.y))
    )
    return replace(one.place, x=x, y=y)


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
        pictures = FilmPictures(self._film)
        times = np.arange(np.ceil(self._film.seconds * self._fps)) / self._fps
        times = times[(times >= start) & (times < self._film.seconds)]
        for first in range(0, len(times), self._batch):
            part = times[first : first + self._batch]
            pixels = [
                np.asarray(pictures.at(float(t)).resize(self._size, Image.Resampling.BILINEAR))
                for t in part
            ]
            yield Frames(self.info.video_id, np.stack(pixels), part)


def is_sampled(film: Film, needle: int, fps: float) -> bool:
    """Whether a frame at this rate shows the needle; if not, no arm can find it."""
    one = film.shown[needle]
    return bool(np.ceil(one.start * fps - 1e-9) / fps < one.end)


def write(film: Film, path: Path, progress: Callable[[float], None] = lambda t: None) -> None:
    """Write the film as an H.264 MP4, which appears under its name when it is complete.

    With speech it has sound, and beside a film with sentences stand subtitles that hold them.
    """
    pictures = FilmPictures(film)
    size = (film.width, film.height)
    silent = path.with_stem(f"{path.stem}.silent") if sound.has_speech(film) else path
    video.write(silent, (), film.seconds, pictures.at, fps=FILE_FPS, size=size, progress=progress)
    if silent is not path:
        try:
            sound.with_speech(film, silent, path)
        finally:
            silent.unlink()
    sound.write_transcript(film, path)
