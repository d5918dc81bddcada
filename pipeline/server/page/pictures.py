"""JPEGs of moments of a film, decoded from its file.

Knows files and pixels; no model and no page. Pictures are decoded on request and cached. Those of a
stream are on a shelf of their own (streams/picture_shelf.py).
"""

import threading
from collections import OrderedDict
from pathlib import Path

from PIL import Image

from encoders.errors import UserError
from encoders.sources.pictures import pictures_at
from pipeline.server.streams.picture_shelf import WIDTH, jpeg

_MAX_CACHED = 256  # pictures of a file


class FilePictures:
    """Pictures of a video file, at seconds of video time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # one decoder at a time, so that thumbnails leave the cores to the model
        self._lock = threading.Lock()
        self._cache: OrderedDict[int, bytes | None] = OrderedDict()  # tenths of a second -> JPEG

    def at(self, seconds: float) -> bytes | None:
        """JPEG of the picture that is shown at a second; None where there is none."""
        key = round(10 * max(0.0, seconds))
        with self._lock:
            if key not in self._cache:
                self._cache[key] = self._decode(key / 10)
                while len(self._cache) > _MAX_CACHED:
                    self._cache.popitem(last=False)
            self._cache.move_to_end(key)
            return self._cache[key]

    def _decode(self, seconds: float) -> bytes | None:
        try:
            picture = next(pictures_at(self._path, (seconds,), WIDTH))
        except (OSError, UserError):
            return None
        return None if picture is None else jpeg(Image.fromarray(picture))
