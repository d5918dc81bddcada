"""JPEGs of pictures, small enough to be stored with every frame of a bank (source.keep=jpeg).

Knows pixels; no file, no time and no bank.
"""

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from encoders.errors import UserError

QUALITY = 80  # of a JPEG that is only shown
KINDS = ("none", "jpeg")
MOST_BYTES = 10_000  # of one JPEG by default: at most 36 MB an hour of a frame a second
_LEAST_BYTES = 2_000  # what the smallest picture surely fits into
# below this, blocks of a JPEG are seen before its lost pixels are
_STEP, _LEAST_QUALITY = 25, 50
_BYTES_BY_SIDE = 0.6  # a picture of a share s of the bytes has sides of s ** 0.6, or a little more


def jpeg_of(picture: np.ndarray, quality: int = QUALITY) -> bytes:
    """The JPEG of [height, width, 3] uint8 RGB; equal pixels give equal bytes."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


@dataclass(frozen=True, slots=True)
class ThumbnailMaker:
    """Makes a JPEG of bounded size of a picture that has been scaled already."""

    size: int  # pixels of the longer side at most
    quality: int  # 1 to 95
    most_bytes: int  # of one JPEG

    def __call__(self, picture: np.ndarray) -> bytes:
        """[height, width, 3] uint8 RGB -> JPEG of at most `most_bytes`. Where it does not fit, its
        quality is lowered first, down to 50, then its size, by as much as is too many bytes.
        """
        quality, scaled = self.quality, picture
        while True:
            jpeg = jpeg_of(scaled, quality)
            if len(jpeg) <= self.most_bytes:
                return jpeg
            if quality > _LEAST_QUALITY:
                quality = max(_LEAST_QUALITY, quality - _STEP)
            else:
                share = min(0.9, (self.most_bytes / len(jpeg)) ** _BYTES_BY_SIDE)
                height, width = (max(1, int(side * share)) for side in scaled.shape[:2])
                smaller = Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC)
                scaled = np.asarray(smaller)


def thumbnail_maker(keep: str, size: int, quality: int, most_bytes: int) -> ThumbnailMaker | None:
    """What `source.keep=` and its dials say; None for none. UserError on values that are none."""
    if keep not in KINDS:
        raise UserError(f"source.keep={keep} is not known; use {' or '.join(KINDS)}")
    for name, value, least, most in (
        ("keep_size", size, 16, 8192),
        ("keep_quality", quality, 1, 95),
        ("keep_bytes", most_bytes, _LEAST_BYTES, 10**8),
    ):
        if not least <= value <= most:
            raise UserError(f"source.{name}={value} does not fit; use {least} to {most}")
    return None if keep == "none" else ThumbnailMaker(size, quality, most_bytes)
