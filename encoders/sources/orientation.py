"""Turn and mirror decoded pictures as the file's display matrix says. Knows PyAV's frames."""

import struct
from collections.abc import Mapping
from typing import cast

import av
import numpy as np
from av.buffer import Buffer

_UPRIGHT = (1, 0, 0, 1)


def matrix(frame: av.VideoFrame) -> tuple[int, int, int, int]:
    """Signs of the 2 x 2 part of the display matrix: x' = a x + c y, y' = b x + d y.

    Upright for a frame without a matrix, and for angles that are no quarter turns.
    """
    data = raw_matrix(frame)
    if data is None:
        return _UPRIGHT
    a, b, _, c, d = data[:5]
    size = max(abs(a), abs(b), abs(c), abs(d))
    if not size:
        return _UPRIGHT
    a, b, c, d = (round(value / size) for value in (a, b, c, d))
    return (a, b, c, d) if abs(a * d - b * c) == 1 else _UPRIGHT


def raw_matrix(frame: av.VideoFrame) -> tuple[int, ...] | None:
    """The nine numbers of the display matrix, in FFmpeg's fixed point; None without a matrix."""
    kinds = cast("Mapping[str, Buffer]", frame.side_data)  # typed as a dictionary by PyAV
    try:
        return struct.unpack("=9i", bytes(kinds["DISPLAYMATRIX"])[:36])
    except KeyError:
        return None


def is_lying(signs: tuple[int, int, int, int]) -> bool:
    """True if width and height change places."""
    return not signs[0]


def upright(picture: np.ndarray, signs: tuple[int, int, int, int]) -> np.ndarray:
    """[height, width, 3] -> the picture as players show it."""
    a, b, c, d = signs
    if a == 0:  # x' = c y, y' = b x
        picture = picture.swapaxes(0, 1)
        picture = picture[:, ::-1] if c < 0 else picture
        picture = picture[::-1] if b < 0 else picture
    else:
        picture = picture[:, ::-1] if a < 0 else picture
        picture = picture[::-1] if d < 0 else picture
    return np.ascontiguousarray(picture)


def upright_picture(frame: av.VideoFrame) -> np.ndarray:
    """[height, width, 3] uint8 RGB of a frame at its own size, as players show it."""
    return upright(frame.to_ndarray(format="rgb24"), matrix(frame))
