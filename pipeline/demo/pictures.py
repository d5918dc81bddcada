"""Pictures of moments, for people: JPEGs of what a file shows at a second, or of what a live source showed.

Knows files and pixels; no model, no bank and no page. A live source's pictures are kept in memory, the newest hour of them at
one a second; a file's are decoded when they are looked at.
"""

import io
import threading
from bisect import bisect_right
from collections import OrderedDict, deque
from pathlib import Path
from typing import Protocol

import av
import numpy as np
from PIL import Image

_WIDTH = 480  # of a picture that is kept or looked at
_KEPT = 3600  # of a live source: some 30 MB
_DECODED = 256  # of a file
_FIRST_S = 2.0  # the first picture comes a moment after a live source's second 0, and stands for it


class Pictures(Protocol):
    """`at(seconds)` and, while something comes in, `newest()`."""

    def at(self, seconds: float) -> bytes | None:
        """JPEG of the last picture that was shown at that second; None when there is none."""
        ...

    def newest(self) -> bytes | None: ...


def jpeg(picture: Image.Image, width: int = _WIDTH) -> bytes:
    """Scaled down to this width, its shape kept."""
    if picture.width > width:
        picture = picture.resize(
            (width, max(1, round(picture.height * width / picture.width))),
            Image.Resampling.BILINEAR,
        )
    out = io.BytesIO()
    picture.convert("RGB").save(out, "JPEG", quality=80)
    return out.getvalue()


class FilePictures:
    """Of a video file; seconds count from its first picture."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # one decoder at a time: thumbnails must not take the cores from the model
        self._lock = threading.Lock()
        self._found: OrderedDict[int, bytes | None] = OrderedDict()  # tenths of a second -> JPEG

    def at(self, seconds: float) -> bytes | None:
        key = round(10 * max(0.0, seconds))
        with self._lock:
            if key not in self._found:
                self._found[key] = self._decoded(key / 10)
                while len(self._found) > _DECODED:
                    self._found.popitem(last=False)
            self._found.move_to_end(key)
            return self._found[key]

    def newest(self) -> bytes | None:
        return None

    def _decoded(self, seconds: float) -> bytes | None:
        try:
            with av.open(str(self._path), metadata_errors="replace") as file:
                stream = file.streams.video[0]
                stream.codec_context.thread_count = 1
                first = next(file.decode(stream))
                if first.pts is None or stream.time_base is None:
                    return jpeg(first.to_image())
                wanted = first.pts + seconds / float(stream.time_base)
                file.seek(int(wanted), stream=stream)
                shown = first
                for frame in file.decode(stream):
                    if frame.pts is not None and frame.pts > wanted + 1e-6:
                        break
                    shown = frame
                return jpeg(shown.to_image())
        except (av.FFmpegError, StopIteration, IndexError):
            return None


class KeptPictures:
    """Of a live source: `keep` them as they come."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._times: deque[float] = deque(maxlen=_KEPT)
        self._data: deque[bytes] = deque(maxlen=_KEPT)
        self._newest: bytes | None = None

    def keep(self, picture: "av.VideoFrame | np.ndarray", at: float, sampled: bool) -> None:
        """sampled: whether the picture went to the encoder, and is one to look back at."""
        data = jpeg(
            picture.to_image() if isinstance(picture, av.VideoFrame) else Image.fromarray(picture)
        )
        with self._lock:
            self._newest = data
            if sampled:
                self._times.append(at)
                self._data.append(data)

    def at(self, seconds: float) -> bytes | None:
        with self._lock:
            place = bisect_right(self._times, seconds + 1e-3) - 1
            if place < 0 and self._times and self._times[0] - seconds <= _FIRST_S:
                place = 0
            return self._data[place] if place >= 0 else None

    def newest(self) -> bytes | None:
        with self._lock:
            return self._newest
