"""Pictures of moments of a bank: decoded from the film; where that is gone, or was a stream, the
thumbnails that the bank stores.

Knows the catalog of a bank and one decoder; no prompt and no page. What a picture shows is what is
shown at its second, as when the frame was encoded.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from encoders.errors import UserError
from encoders.sources.identity import why_not_file
from encoders.sources.pictures import pictures_at, scaled_down
from encoders.sources.thumbnail_maker import jpeg_of
from memory.bank_catalog import BankCatalog

Encode = Callable[[np.ndarray], bytes]  # [height, width, 3] uint8 RGB -> a file


@dataclass(frozen=True, slots=True)
class Pictures:
    """Pictures of some seconds, and what is to be known of them."""

    files: list[bytes | None]  # JPEG, or what the caller encodes; None: there is none
    # why the film does not give all of them, as the end of a sentence; "": it does
    obstacle: str
    stored: int  # how many are stored thumbnails

    @property
    def missing(self) -> int:
        """How many there are not."""
        return self.files.count(None)


class PictureSource:
    """The pictures of one bank. Threads: many may ask."""

    def __init__(self, catalog: BankCatalog) -> None:
        self._catalog = catalog

    def at(
        self,
        video_id: str,
        seconds: Sequence[float],
        size: tuple[int, int] | int,
        encode: Encode = jpeg_of,
    ) -> Pictures:
        """A picture for each second of video time. UserError if the bank has no such video.

        size: (width, height) in pixels, or the longer side at most. encode: of a picture that is
        decoded; a stored thumbnail that fits stays the JPEG that it is.
        """
        path = self._catalog.require_video(video_id).info.path
        obstacle = why_not_file(video_id, path)
        files: list[bytes | None] = [None] * len(seconds)
        if not obstacle:
            try:
                for place, picture in enumerate(pictures_at(Path(path), seconds, size)):
                    files[place] = None if picture is None else encode(picture)
            except (OSError, UserError) as error:
                obstacle = f"{path} cannot be read ({str(error).rstrip('.')})"
        missing = [place for place, file in enumerate(files) if file is None]
        if not missing:
            return Pictures(files, "", 0)
        obstacle = obstacle or f"some pictures of {path} cannot be decoded"
        stored = self._stored(video_id, [seconds[place] for place in missing])
        for place, jpeg in zip(missing, stored, strict=True):
            files[place] = None if jpeg is None else _fitting(jpeg, size, encode)
        return Pictures(files, obstacle, sum(jpeg is not None for jpeg in stored))

    def _stored(self, video_id: str, seconds: Sequence[float]) -> list[bytes | None]:
        try:
            return self._catalog.thumbnails(video_id, seconds)
        except UserError:  # of a damaged segment; a picture is not worth an answer
            return [None] * len(seconds)


def _fitting(jpeg: bytes, size: tuple[int, int] | int, encode: Encode) -> bytes:
    """The thumbnail as it is, or scaled where it is too large or has to have one size."""
    with Image.open(io.BytesIO(jpeg)) as image:
        target = scaled_down(*image.size, size) if isinstance(size, int) else size
        if image.size == target:
            return jpeg
        return encode(np.asarray(image.resize(target, Image.Resampling.BILINEAR)))
