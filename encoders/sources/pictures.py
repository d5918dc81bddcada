"""Pictures of a video file at given seconds, as players show them there: of the same stream, on the
same timeline and turned the same way as the frames that are encoded.

Knows no sampling rate and no bank.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import NamedTuple, cast

import av
import numpy as np

from encoders.errors import UserError
from encoders.sources import orientation
from encoders.sources.container import MAX_PIXELS, Container, inspect, open_film
from encoders.sources.decoding.pyav_reader import PyAvReader
from encoders.sources.decoding.scaler import Scaler
from encoders.sources.packets.scan import demux

_BEGINNING = 256  # packets among which a film's first picture is looked for
_EPS_S = 1e-3  # Matroska rounds times to milliseconds


class PictureSize(NamedTuple):
    """Pixels of a picture as players turn it."""

    width: int
    height: int
    is_turned: bool  # by a quarter


def pictures_at(
    path: Path, seconds: Sequence[float], size: tuple[int, int] | int
) -> Iterator[np.ndarray | None]:
    """[height, width, 3] uint8 RGB of the picture that is shown at each second of video time, in
    the order of `seconds`. Before the first picture that is the first one, behind the last one the
    last. None where it cannot be decoded.

    size: (width, height) in pixels, or the longer side at most, with the film's proportions.
    UserError if the file is not a video.
    """
    facts = inspect(path)
    numbers = np.searchsorted(facts.times, np.asarray(seconds, dtype=float) + _EPS_S, side="right")
    numbers = np.clip(numbers - 1, 0, len(facts.times) - 1)
    needed = set(numbers.tolist())
    if not needed:
        return

    def scaled(frame: av.VideoFrame, scaler: Scaler) -> np.ndarray:
        fit = size if isinstance(size, tuple) else fit_size(facts, frame, size)
        return scaler.picture(frame, fit)

    reader = PyAvReader(facts, scaled, numbers)
    # pictures come in the film's order; those that are asked for later wait
    decoded: dict[int, np.ndarray] = {}
    passing = reader.pictures(int(numbers.min()))
    for place, number in enumerate(numbers.tolist()):
        while number not in decoded:
            one = next(passing, None)
            if one is None:
                break
            if one.number in needed:
                decoded[one.number] = one.content()
        yield decoded.get(number)
        if number not in numbers[place + 1 :]:
            decoded.pop(number, None)
    passing.close()


def display_ratio(path: Path) -> float | None:
    """Width over height of a film as players show it: with the shape of its pixels, and turned.

    Decodes one picture. None for a file that is no video; `inspect` says why.
    """
    size = picture_size(path)
    if size is None:
        return None
    aspect, is_lying = inspect(path).pixel_aspect, size.is_turned
    return size.width / size.height * (1 / aspect if is_lying else aspect)


def picture_size(path: Path) -> PictureSize | None:
    """The pixels of a film's pictures, turned as players show them. None as of `display_ratio`."""
    try:
        facts = inspect(path)
        with open_film(facts) as container:
            stream = container.streams[facts.streams[0]]
            assert isinstance(stream, av.VideoStream)
            frame = _first_picture(container, stream)
    except (UserError, OSError, av.FFmpegError):
        return None
    coder = stream.codec_context
    width, height = (coder.width, coder.height) if frame is None else (frame.width, frame.height)
    if not width * height:
        return None
    is_lying = frame is not None and orientation.is_lying(orientation.matrix(frame))
    return PictureSize(height, width, True) if is_lying else PictureSize(width, height, False)


def _first_picture(
    container: "av.container.InputContainer", stream: "av.VideoStream"
) -> av.VideoFrame | None:
    """The first picture that can be decoded; None if the beginning of the film is too damaged."""
    coder = stream.codec_context
    coder.thread_count = 1
    coder.options = {"max_pixels": str(MAX_PIXELS)}
    for packet in islice(demux(container, stream), _BEGINNING):
        with suppress(av.FFmpegError):
            for frame in coder.decode(cast("av.Packet[av.VideoStream]", packet)):
                return frame
    return None


def fit_size(facts: Container, frame: av.VideoFrame, side: int) -> tuple[int, int]:
    """(width, height) as players show it, with the longer side at most `side` pixels."""
    width, height = scaled_down(frame.width * facts.pixel_aspect, float(frame.height), side)
    return (height, width) if orientation.is_lying(orientation.matrix(frame)) else (width, height)


def scaled_down(width: float, height: float, side: int) -> tuple[int, int]:
    """(width, height) of the same shape, with the longer side at most `side` pixels."""
    scale = min(1.0, side / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))
