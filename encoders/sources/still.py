"""One small picture of a video file, as a JPEG. Knows no sampling rate and no bank."""

import io
from pathlib import Path

from PIL import Image

from encoders.errors import UserError
from encoders.sources.pictures import pictures_at

_SIDE = 320  # pixels, of the longer side at most


def still(path: str, seconds: float) -> bytes | None:
    """JPEG of the picture that is shown at this second, or of the last one before the end.

    None if the file is gone or has no picture there.
    """
    try:
        picture = next(pictures_at(Path(path), (seconds,), _SIDE))
    except (OSError, UserError):
        return None
    if picture is None:
        return None
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=80)
    return buffer.getvalue()
