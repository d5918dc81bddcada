"""The picture of a notice, and a clip of the seconds around it.

A film gives a clip of its own pictures and sound; a stream gives the pictures that are kept of it
(`source.keep=jpeg`, or those of the page), one after another. What cannot be made is left out: a
notice never waits for its picture.
"""

import io
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from encoders.errors import UserError
from memory.storage.atomic import replacing, write_atomically
from pipeline.export.clip import cut_clip

log = logging.getLogger(__name__)

BEFORE_S, AFTER_S = 6.0, 2.0  # of a clip
_FRAME_MS = 500  # that a picture of a stream stands in a clip


@dataclass(frozen=True, slots=True)
class Attachments:
    """Where pictures of one stream come from."""

    picture_at: Callable[[float], bytes | None] = lambda seconds: None  # JPEG of a video second
    film: Path | None = None  # None: a stream
    interval: float = 1.0  # seconds between the pictures of a stream

    def write(self, folder: Path, name: str, time: float) -> tuple[Path | None, Path | None]:
        """Write the picture and the clip of a moment to a folder: their paths, None where there is
        none. time: seconds of video time."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return self._picture(folder / f"{name}.jpg", time), self._clip(folder / name, time)
        except OSError as error:
            log.warning("reelbank: warning: a notice has no picture: %s", error)
            return None, None

    def _picture(self, path: Path, time: float) -> Path | None:
        jpeg = self.picture_at(time)
        if jpeg is None:
            return None
        write_atomically(path, jpeg)
        return path

    def _clip(self, stem: Path, time: float) -> Path | None:
        start = max(0.0, time - BEFORE_S)
        if self.film is not None:
            path = stem.with_name(f"{stem.name}.mp4")
            try:
                return cut_clip(self.film, start, time + AFTER_S, path).path
            except UserError as error:  # such as a format that mp4 cannot hold
                log.warning("reelbank: warning: a notice has no clip: %s", error)
                return None
        count = int((time - start) / self.interval)
        times = [time - number * self.interval for number in range(count, -1, -1)]
        jpegs = list(dict.fromkeys(filter(None, map(self.picture_at, times))))
        if len(jpegs) < 2:
            return None
        first, *others = [Image.open(io.BytesIO(jpeg)).convert("RGB") for jpeg in jpegs]
        path = stem.with_name(f"{stem.name}.webp")
        with replacing(path) as temporary:
            first.save(
                temporary, format="WEBP", save_all=True, append_images=others, duration=_FRAME_MS,
                loop=0,
            )  # fmt: skip
        return path
