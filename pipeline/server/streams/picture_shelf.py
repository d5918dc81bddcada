"""Pictures of live sources in memory, for the page: the newest one of each, and sampled ones.

The newest one becomes a JPEG when somebody asks for it. Sampled ones stand for what the bank does
not store (source.keep=none); all streams share one budget of bytes, and the oldest go first. Knows
pixels; no stream and no page.
"""

import threading
from bisect import bisect_right
from collections import deque
from dataclasses import dataclass, field

import av
import numpy as np
from PIL import Image

from encoders.sources import orientation
from encoders.sources.thumbnail_maker import jpeg_of

WIDTH = 480  # pixels at most
_NBYTES = 32 << 20  # of the sampled pictures of all sources: about an hour of one at 1 fps
_FIRST_S = 2.0  # a source's first picture may arrive this late and still stands for second 0

Picture = av.VideoFrame | np.ndarray  # decoded, or [height, width, 3] uint8 RGB


@dataclass(slots=True)
class _Newest:
    picture: Picture
    jpeg: bytes | None = None  # once it was asked for
    # PyAV keeps a scaler in each decoded picture: two threads that convert one end the process
    converting: threading.Lock = field(default_factory=threading.Lock)


@dataclass(slots=True)
class _Pictures:
    """Of one source."""

    times: deque[float] = field(default_factory=deque)  # seconds of video time, rising
    jpegs: deque[bytes] = field(default_factory=deque)
    newest: _Newest | None = None  # replaced as a whole, without a lock


class PictureShelf:
    """Threads: any."""

    def __init__(self, nbytes: int = _NBYTES) -> None:
        """nbytes: of the sampled pictures of all sources together, at most."""
        self._most, self._nbytes = nbytes, 0
        self._lock = threading.Lock()
        self._sources: dict[str, _Pictures] = {}
        self._order: deque[_Pictures] = deque()  # the source of each sampled picture, oldest first

    @property
    def nbytes(self) -> int:
        """Of the sampled pictures of all sources."""
        return self._nbytes

    def show(self, name: str, picture: Picture) -> None:
        """The newest picture of a source, which nobody else reads from now on."""
        # every picture of every source comes here: a lock would make all wait for whoever has it
        own = self._sources.get(name)
        if own is None:
            with self._lock:
                own = self._sources.setdefault(name, _Pictures())
        own.newest = _Newest(picture)

    def keep(self, name: str, picture: Picture, at: float) -> None:
        """Keep a sampled picture. at: seconds of video time, later than those before."""
        data = _jpeg(picture)
        with self._lock:
            own = self._sources.setdefault(name, _Pictures())
            own.times.append(at)
            own.jpegs.append(data)
            self._order.append(own)
            self._nbytes += len(data)
            while self._nbytes > self._most:
                oldest = self._order.popleft()
                oldest.times.popleft()
                self._nbytes -= len(oldest.jpegs.popleft())

    def at(self, name: str, seconds: float) -> bytes | None:
        """JPEG of the sampled picture that is shown at a second; None where there is none."""
        with self._lock:
            own = self._sources.get(name)
            if own is None or not own.times:
                return None
            place = bisect_right(own.times, seconds + 1e-3) - 1
            if place < 0 and own.times[0] - seconds <= _FIRST_S:
                place = 0
            return own.jpegs[place] if place >= 0 else None

    def newest(self, name: str) -> bytes | None:
        """JPEG of the newest picture of a source; None where there is none."""
        own = self._sources.get(name)
        newest = None if own is None else own.newest
        if newest is None:
            return None
        with newest.converting:
            if newest.jpeg is None:
                newest.jpeg = _jpeg(newest.picture)
            return newest.jpeg

    def forget(self, name: str) -> None:
        """Free the pictures of a source."""
        with self._lock:
            own = self._sources.pop(name, None)
            if own is not None:
                self._nbytes -= sum(map(len, own.jpegs))
                self._order = deque(each for each in self._order if each is not own)


def jpeg(picture: Image.Image, width: int = WIDTH) -> bytes:
    """JPEG of a picture, scaled down to at most this width in pixels. The aspect ratio stays."""
    if picture.width > width:
        picture = picture.resize(
            (width, max(1, round(picture.height * width / picture.width))),
            Image.Resampling.BILINEAR,
        )
    return jpeg_of(np.asarray(picture.convert("RGB")))


def _jpeg(picture: Picture) -> bytes:
    if isinstance(picture, av.VideoFrame):
        picture = orientation.upright_picture(picture)
    return jpeg(Image.fromarray(picture))
