"""A small picture of a video file, as a JPEG. Knows no sampling rate and no bank."""

from pathlib import Path

from encoders.errors import UserError
from encoders.sources.pictures import pictures_at
from encoders.sources.thumbnail_maker import jpeg_of

_SIDE = 320  # pixels, of the longer side at most


def still(path: str, seconds: float) -> bytes | None:
    """JPEG of the picture that is shown at this second, or of the last one before the end.

    None if the file is gone or has no picture there.
    """
    try:
        (picture,) = pictures_at(Path(path), (seconds,), _SIDE)
    except (OSError, UserError):
        return None
    return None if picture is None else jpeg_of(picture)
