"""Pictures of recalled frames, decoded again from the film that a bank was made of, as data URIs.

Knows the catalog of a bank and one decoder; no prompt. What a picture shows is what is shown at the
second of its frame, as when the frame was encoded.
"""

import base64
import io
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from encoders.errors import UserError
from encoders.sources.identity import why_not_file
from encoders.sources.pictures import pictures_at
from memory.bank_catalog import BankCatalog

_MOST_BYTES = 64 << 20  # of pictures that wait for the next question about the same film
_FORMATS = {"jpeg": "JPEG", "png": "PNG"}


@dataclass(frozen=True, slots=True)
class PictureFormat:
    """How a picture is sent."""

    size: tuple[int, int] | int  # (width, height), or the longer side at most, in pixels
    encoding: str  # jpeg, or png, which keeps every pixel
    quality: int  # of jpeg

    def data_uri(self, picture: np.ndarray) -> str:
        """[height, width, 3] uint8 RGB -> the text of an `image_url`."""
        buffer = io.BytesIO()
        image = Image.fromarray(picture)
        if self.encoding == "png":
            image.save(buffer, "PNG", compress_level=1)
        else:
            image.save(buffer, "JPEG", quality=self.quality)
        return f"data:image/{self.encoding};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def parse_size(text: str | int) -> tuple[int, int] | int:
    """768 -> 768; "224x126" -> (224, 126). UserError on what is no size."""
    sides = str(text).lower().split("x")
    if len(sides) > 2 or not all(side.isdecimal() and 0 < int(side) <= 8192 for side in sides):
        raise UserError(
            f"backbone.image_size={text} is no size; give the longer side in pixels, such as 768, "
            "or both, such as 224x126"
        )
    if len(sides) == 1:
        return int(sides[0])
    return int(sides[0]), int(sides[1])


def picture_format(size: str | int, encoding: str, quality: int) -> PictureFormat:
    """UserError on values that are none."""
    if encoding not in _FORMATS:
        raise UserError(
            f"backbone.image_format={encoding} is not known; use {' or '.join(_FORMATS)}"
        )
    if not 1 <= quality <= 95:
        raise UserError(f"backbone.image_quality={quality} is no quality; use 1 to 95")
    return PictureFormat(parse_size(size), encoding, quality)


class FilmPictures:
    """The pictures of the films of one bank. Threads: many may ask; one decodes at a time."""

    def __init__(self, catalog: BankCatalog, form: PictureFormat) -> None:
        self._catalog, self._form = catalog, form
        self._lock = threading.Lock()
        self._recent: OrderedDict[tuple[str, float], str] = OrderedDict()
        self._nbytes = 0

    def at(self, video_id: str, seconds: Sequence[float]) -> tuple[list[str | None], str]:
        """A data URI for each second, or None where there is no picture; and why there is none, as
        the end of a sentence ("" where all are there).
        """
        with self._lock:
            missing = [at for at in seconds if (video_id, at) not in self._recent]
            obstacle = self._decode(video_id, missing) if missing else ""
            uris = [self._recent.get((video_id, at)) for at in seconds]
            for at in seconds:
                if (video_id, at) in self._recent:
                    self._recent.move_to_end((video_id, at))
            while self._nbytes > _MOST_BYTES and len(self._recent) > len(seconds):
                self._nbytes -= len(self._recent.popitem(last=False)[1])
        if not obstacle and None in uris:
            obstacle = "some of its pictures cannot be decoded"
        return uris, obstacle

    def _decode(self, video_id: str, seconds: Sequence[float]) -> str:
        """Remember the pictures of these seconds; -> why not."""
        video = self._catalog.require_video(video_id)
        path = video.info.path
        obstacle = why_not_file(video_id, path)
        if obstacle:
            return obstacle
        try:
            pictures = pictures_at(Path(path), seconds, self._form.size)
            for at, picture in zip(seconds, pictures, strict=True):
                if picture is not None:
                    uri = self._form.data_uri(picture)
                    self._recent[video_id, at] = uri
                    self._nbytes += len(uri)
        except (OSError, UserError) as error:
            return f"{path} cannot be read ({str(error).rstrip('.')})"
        return ""
