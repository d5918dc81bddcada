"""Haystacks of any length: footage as a function of the second, with no two seconds alike.

Published needle tests repeat their haystack, so a needle is what does not come twice. Here every
scene has its own crop, mirroring and colours, and every second its own shift, brightness and noise.
Only decoded pictures are cached, so any second can be requested in any order. Knows no needles and
no model.
"""

from collections import OrderedDict
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image, ImageChops

from encoders.errors import UserError
from encoders.sources.file import FileSource
from pipeline.evaluation.needle.films.schema import Film
from pipeline.needle_world.cards import procedural

SCENE_S = 14.0  # of procedural footage
# pictures a second read from files; a repeated loop starts elsewhere and so meets other pictures
_RATE = 4.0
_CHUNK = 32  # pictures decoded at once
_CACHE = 256 << 20  # bytes of decoded pictures


class Haystack(Protocol):
    """Pictures of the footage that hides the needles."""

    def at(self, second: float) -> Image.Image:
        """The picture at this second; no two seconds give the same one."""
        ...


def haystack_of(film: Film) -> Haystack:
    """The footage of a film."""
    size = (film.width, film.height)
    if film.footage[:1] == ("grey",):
        return GreyHaystack(size)
    if film.footage:
        return FileHaystack([Path(name) for name in film.footage], film.seed, size)
    return ProceduralHaystack(film.seed, size)


class GreyHaystack:
    """Flat grey: needles alone."""

    def __init__(self, size: tuple[int, int]) -> None:
        self._size = size

    def at(self, second: float) -> Image.Image:
        return Image.new("RGB", self._size, (128, 128, 128))


class ProceduralHaystack:
    """Moving scenes without a camera."""

    def __init__(self, seed: int, size: tuple[int, int]) -> None:
        self._seed, self._size, self._vary = seed, size, _SecondNoise(seed, size)

    def at(self, second: float) -> Image.Image:
        scene = int(second // SCENE_S)
        picture = procedural(np.random.default_rng((self._seed, scene)), self._size, second)
        return self._vary(picture, second)


class FileHaystack:
    """Video files one after another, repeated to any length.

    Order, crop, mirroring and colour change with every repetition.
    """

    def __init__(self, files: list[Path], seed: int, size: tuple[int, int]) -> None:
        """UserError when a file is no video."""
        self._sources = [
            FileSource(path, _RATE, width=size[0], height=size[1], batch=_CHUNK) for path in files
        ]
        self._lengths = [max(source.info.duration, 1.0) for source in self._sources]
        self._seed, self._size, self._vary = seed, size, _SecondNoise(seed, size)
        self._chunks: OrderedDict[tuple[int, int], np.ndarray] = OrderedDict()

    def at(self, second: float) -> Image.Image:
        loop, rest = divmod(second, sum(self._lengths))
        rng = np.random.default_rng((self._seed, int(loop)))
        for i in rng.permutation(len(self._lengths)).tolist():
            if rest < self._lengths[i]:
                break
            rest -= self._lengths[i]
        scene = np.random.default_rng((self._seed, int(loop), i))
        begin = scene.uniform(0, self._lengths[i])
        picture = Image.fromarray(self._frame(i, (rest + begin) % self._lengths[i]))
        zoom, mirrored, tone = (
            scene.uniform(0.65, 1.0),
            scene.random() < 0.5,
            scene.uniform(0.8, 1.2, 3),
        )
        x, y = scene.uniform(0, 1 - zoom, 2)
        w, h = self._size
        picture = picture.resize(
            self._size, Image.Resampling.BILINEAR, (x * w, y * h, (x + zoom) * w, (y + zoom) * h)
        )
        if mirrored:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return self._vary(picture, second, tone)

    def _frame(self, file: int, second: float) -> np.ndarray:
        """[h, w, 3] uint8 of a file at this second, or its last picture before."""
        chunk, place = divmod(int(second * _RATE), _CHUNK)
        if (file, chunk) not in self._chunks:
            self._chunks[file, chunk] = self._decode(file, chunk)
        self._chunks.move_to_end((file, chunk))
        while len(self._chunks) > 1 and sum(part.nbytes for part in self._chunks.values()) > _CACHE:
            self._chunks.popitem(last=False)
        pictures = self._chunks[file, chunk]
        picture: np.ndarray = pictures[min(place, len(pictures) - 1)]
        return picture

    def _decode(self, file: int, chunk: int) -> np.ndarray:
        source, begin = self._sources[file], chunk * _CHUNK / _RATE
        for start in (begin, 0.0):  # a file may end before its stated duration
            chunks = [frames.pixels for frames in islice(source.frames(start), 1)]
            if chunks:
                return chunks[0]
        raise UserError(
            f"{source.info.path} has no picture that can be decoded; give another haystack."
        )


class _SecondNoise:
    """Adds a small shift, brightness and noise that depend on the second alone.

    Pillow does the work: in numpy it took longer than encoding the frame.
    """

    def __init__(self, seed: int, size: tuple[int, int]) -> None:
        self._seed = seed
        rng = np.random.default_rng(seed)
        self._noise = Image.fromarray(rng.integers(0, 20, (size[1], size[0], 3), dtype=np.uint8))

    def __call__(
        self, picture: Image.Image, second: float, tone: np.ndarray | float = 1.0
    ) -> Image.Image:
        rng = np.random.default_rng((self._seed, round(second * 1000)))
        picture = ImageChops.offset(picture, *(int(v) for v in rng.integers(-2, 3, 2)))
        gains = np.broadcast_to(np.asarray(tone) * rng.uniform(0.94, 1.06), 3)
        levels = np.clip(np.outer(gains, np.arange(256)), 0, 255).astype(int)
        noise = ImageChops.offset(self._noise, *(int(rng.integers(side)) for side in picture.size))
        return ImageChops.add(picture.point(levels.ravel().tolist()), noise, offset=-10)
