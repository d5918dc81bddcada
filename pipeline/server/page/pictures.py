"""JPEGs of moments: decoded from a file, or kept from a live source.

Knows files and pixels; no model and no page. Live pictures stay in memory, the latest 3,600 sampled
ones. A file's pictures are decoded on request and cached. Those that are not there any more come
from the thumbnails of the bank, if it stores them (source.keep=jpeg).
"""

import threading
from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import av
import numpy as np
from PIL import Image

from encoders.errors import UserError
from encoders.sources import orientation
from encoders.sources.pictures import pictures_at
from encoders.sources.thumbnail_maker import jpeg_of

_WIDTH = 480  # pixels; of a file's pictures, the longer side
_MAX_LIVE = 3600  # sampled pictures of a live source, about 30 MB
_MAX_CACHED = 256  # pictures of a file
# seconds of video time -> the JPEG that the bank stores, or None
Stored = Callable[[float], bytes | None]
_FIRST_S = 2.0  # a live source's first picture may arrive this late and still stands for second 0


class Pictures(Protocol):
    """Pictures of one feed."""

    def at(self, seconds: float) -> bytes | None:
        """JPEG of the picture shown at that video second; None when there is none."""
        ...

    def latest(self) -> bytes | None:
        """JPEG of the latest picture; None for a file."""
        ...


def jpeg(picture: Image.Image, width: int = _WIDTH) -> bytes:
    """JPEG of a picture, scaled down to at most this width in pixels. The aspect ratio stays."""
    if picture.width > width:
        picture = picture.resize(
            (width, max(1, round(picture.height * width / picture.width))),
            Image.Resampling.BILINEAR,
        )
    return jpeg_of(np.asarray(picture.convert("RGB")))


def _none(seconds: float) -> None:
    return None


class FilePictures:
    """Pictures of a video file, at seconds of video time."""

    def __init__(self, path: Path, stored: Stored = _none) -> None:
        self._path, self._stored = path, stored
        # one decoder at a time, so that thumbnails leave the cores to the model
        self._lock = threading.Lock()
        self._cache: OrderedDict[int, bytes | None] = OrderedDict()  # tenths of a second -> JPEG

    def at(self, seconds: float) -> bytes | None:
        key = round(10 * max(0.0, seconds))
        with self._lock:
            if key not in self._cache:
                self._cache[key] = self._decode(key / 10)
                while len(self._cache) > _MAX_CACHED:
                    self._cache.popitem(last=False)
            self._cache.move_to_end(key)
            return self._cache[key]

    def latest(self) -> bytes | None:
        return None

    def _decode(self, seconds: float) -> bytes | None:
        try:
            picture = next(pictures_at(self._path, (seconds,), _WIDTH))
        except (OSError, UserError):
            picture = None
        return self._stored(seconds) if picture is None else jpeg(Image.fromarray(picture))


class LivePictures:
    """Pictures of a live source, added as they arrive."""

    def __init__(self, stored: Stored = _none) -> None:
        self._stored = stored
        self._lock = threading.Lock()
        self._times: deque[float] = deque(maxlen=_MAX_LIVE)
        self._data: deque[bytes] = deque(maxlen=_MAX_LIVE)
        self._latest: bytes | None = None

    def add(self, picture: "av.VideoFrame | np.ndarray", at: float, sampled: bool) -> None:
        """at: video second. sampled: whether the encoder uses this picture; only those can be
        revisited.
        """
        if isinstance(picture, av.VideoFrame):
            picture = orientation.upright_picture(picture)
        data = jpeg(Image.fromarray(picture))
        with self._lock:
            self._latest = data
            if sampled:
                self._times.append(at)
                self._data.append(data)

    def at(self, seconds: float) -> bytes | None:
        with self._lock:
            place = bisect_right(self._times, seconds + 1e-3) - 1
            if place < 0 and self._times and self._times[0] - seconds <= _FIRST_S:
                place = 0
            if place >= 0:
                return self._data[place]
        return self._stored(seconds)

    def latest(self) -> bytes | None:
        with self._lock:
            return self._latest
