"""Pictures that a request carries as data: URLs, as frames of the model's size.

Knows picture formats; no JSON and no model.
"""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from encoders.schema import Frames
from pipeline.server.chat_request import InlinePicture
from pipeline.server.errors import ApiError

_MOST_PIXELS = 32_000_000  # of one picture
_FORMATS = ("JPEG", "PNG", "WEBP")


def decode_pictures(pictures: Sequence[InlinePicture], size: tuple[int, int]) -> Frames:
    """Frames of (width, height) pixels, squeezed if they have another shape.

    ApiError 400 on damaged base64, 422 on what is no picture or too large.
    """
    pixels = [_decode(picture, number, size) for number, picture in enumerate(pictures)]
    times = np.array([picture.time for picture in pictures])
    return Frames("pictures", np.stack(pixels), times)


def _decode(picture: InlinePicture, number: int, size: tuple[int, int]) -> np.ndarray:
    """[height, width, 3] uint8 RGB."""
    data = b"".join(picture.data.pieces())
    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
        if image.width * image.height > _MOST_PIXELS:
            raise ApiError(
                413, f"Picture {number} has more than {_MOST_PIXELS} pixels.", param="messages"
            )
        rgb = image.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError, SyntaxError):
        raise ApiError(
            422,
            f"Picture {number} is no JPEG, PNG or WebP that can be read.",
            code="invalid_picture",
            param="messages",
        ) from None
    if rgb.size != size:
        rgb = rgb.resize(size, Image.Resampling.BILINEAR)
    return np.asarray(rgb)
