"""Pictures of recalled frames as data URIs, in the format that a server is asked with.

Knows where pictures come from (pipeline/picture_source.py) and keeps the latest; no prompt.
"""

import base64
import io
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from encoders.errors import UserError
from encoders.sources.thumbnail_maker import jpeg_of
from pipeline.picture_source import Pictures, PictureSource

_MOST_BYTES = 64 << 20  # of pictures that wait for the next question about the same film
_FORMATS = ("jpeg", "png")
_JPEG = b"\xff\xd8"  # how the file of one begins


@dataclass(frozen=True, slots=True)
class PictureFormat:
    """How a picture is sent."""

    size: tuple[int, int] | int  # (width, height), or the longer side at most, in pixels
    encoding: str  # jpeg, or png, which keeps every pixel
    quality: int  # of jpeg

    def encode(self, picture: np.ndarray) -> bytes:
        """[height, width, 3] uint8 RGB -> a file of this format."""
        if self.encoding == "jpeg":
            return jpeg_of(picture, self.quality)
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "PNG", compress_level=1)
        return buffer.getvalue()


def data_uri(file: bytes) -> str:
    """A JPEG or PNG -> the text of an `image_url`."""
    kind = "jpeg" if file.startswith(_JPEG) else "png"
    return f"data:image/{kind};base64,{base64.b64encode(file).decode()}"


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


@dataclass(frozen=True, slots=True)
class SentPictures:
    """What can be sent of some frames."""

    uris: list[str | None]  # None: there is no picture
    note: str  # what the user must know, in sentences; "" where the film gives all of them
    obstacle: str  # why the film does not, as the end of a sentence


class FilmPictures:
    """The pictures of the videos of one bank. Threads: many may ask; one decodes at a time."""

    def __init__(self, source: PictureSource, form: PictureFormat) -> None:
        self._source, self._form = source, form
        self._lock = threading.Lock()
        # of the film, and the notes of the others, which come anew each time
        self._recent: OrderedDict[tuple[str, float], str] = OrderedDict()
        self._nbytes = 0

    def at(self, video_id: str, seconds: Sequence[float]) -> SentPictures:
        """The pictures of these seconds of video time."""
        with self._lock:
            missing = [at for at in seconds if (video_id, at) not in self._recent]
            if not missing:
                return self._all_recent(video_id, seconds)
            own = self._source.at(video_id, missing, self._form.size, self._form.encode)
            uris = [None if file is None else data_uri(file) for file in own.files]
            if own.obstacle:  # the film may come back
                fresh = dict(zip(missing, uris, strict=True))
                known = {at: self._recent.get((video_id, at)) for at in seconds} | fresh
                return SentPictures([known[at] for at in seconds], _note(own), own.obstacle)
            for at, uri in zip(missing, uris, strict=True):
                assert uri is not None
                self._recent[video_id, at] = uri
                self._nbytes += len(uri)
            return self._all_recent(video_id, seconds)

    def _all_recent(self, video_id: str, seconds: Sequence[float]) -> SentPictures:
        uris: list[str | None] = [self._recent[video_id, at] for at in seconds]
        for at in seconds:
            self._recent.move_to_end((video_id, at))
        while self._nbytes > _MOST_BYTES and len(self._recent) > len(seconds):
            self._nbytes -= len(self._recent.popitem(last=False)[1])
        return SentPictures(uris, "", "")


def _note(pictures: Pictures) -> str:
    stored, missing = pictures.stored, pictures.missing
    which = "Pictures are stored thumbnails" if not missing else f"{stored} pictures are thumbnails"
    sentences = {
        f"{which}, because {pictures.obstacle}.": stored > 0,
        f"Pictures are missing, because {pictures.obstacle}.": missing > 0,
    }
    return " ".join(text for text, is_so in sentences.items() if is_so)
