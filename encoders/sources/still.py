"""Small pictures of a video file, as JPEGs. Knows no sampling rate and no bank."""

from collections.abc import Sequence
from pathlib import Path

from encoders.errors import UserError
from encoders.sources.pictures import pictures_at
from encoders.sources.thumbnail_maker import jpeg_of

_SIDE = 320  # pixels, of the longer side at most


def still(path: str, seconds: float) -> bytes | None:
    """JPEG of the picture that is shown at this second, or of the last one before the end.

    None if the file is gone or has no picture there.
    """
    return stills(path, (seconds,))[0]


def stills(path: str, seconds: Sequence[float]) -> list[bytes | None]:
    """`still` for several seconds of one file, which is scanned once."""
    try:
        pictures = pictures_at(Path(path), seconds, _SIDE)
        return [None if picture is None else jpeg_of(picture) for picture in pictures]
    except (OSError, UserError):
        return [None] * len(seconds)
