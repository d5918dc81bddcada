"""Files that hold one picture, such as .jpg and .png. Knows Pillow; no film and no frame rate."""

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from encoders.errors import UserError

SUFFIXES = tuple(".png .jpg .jpeg .webp .bmp .gif .tif .tiff .heic .heif .avif".split())


def read_picture(file: Path | io.BytesIO, name: str, side: int | None = None) -> np.ndarray:
    """[height, width, 3] uint8 RGB, turned as viewers show it. name: of it in errors. side: pixels
    of the longer side, at most; None: any. UserError on what is no picture.
    """
    try:
        with Image.open(file) as image:
            if side is not None:
                image.draft("RGB", (side, side))  # a JPEG is decoded at a fraction of its size
            upright = ImageOps.exif_transpose(image)
            if side is not None:
                upright.thumbnail((side, side))
            return np.array(upright.convert("RGB"))
    except Image.DecompressionBombError as error:
        raise UserError(f"{name} has too many pixels; give a smaller picture") from error
    except (OSError, ValueError, SyntaxError) as error:
        raise UserError(f"{name} cannot be read as a picture; give a JPEG, PNG or WebP") from error
