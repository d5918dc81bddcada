"""Pictures of a video file at given seconds, as players show them there: of the same stream, on the
same timeline and turned the same way as the frames that are encoded.

Knows no sampling rate and no bank.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import av
import numpy as np

from encoders.errors import UserError
from encoders.sources import orientation
from encoders.sources.container import Container, check_file, inspect, video_stream
from encoders.sources.decoders import PyAvReader
from encoders.sources.ffmpeg_name import ffmpeg_name

_EPS_S = 1e-3  # Matroska rounds times to milliseconds


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
    wanted = set(numbers.tolist())
    if not wanted:
        return
    reader = PyAvReader(facts, *(size if isinstance(size, tuple) else (1, 1)), numbers)
    # pictures come in the film's order; those that are asked for later wait
    decoded: dict[int, np.ndarray] = {}
    passing = reader.pictures(int(numbers.min()))
    for place, number in enumerate(numbers.tolist()):
        while number not in decoded:
            one = next(passing, None)
            if one is None:
                break
            if one.number in wanted:
                fit = None if isinstance(size, tuple) else _fit(facts, one.frame, size)
                decoded[one.number] = reader.picture(one.frame, fit)
        yield decoded.get(number)
        if number not in numbers[place + 1 :]:
            decoded.pop(number, None)
    passing.close()


def display_ratio(path: Path) -> float | None:
    """Width over height of a film as players show it: with the shape of its pixels, and turned.
    Decodes one picture. None where that is not possible; `inspect` says why.
    """
    try:
        check_file(path)
        with av.open(ffmpeg_name(path), metadata_errors="replace") as container:
            stream = video_stream(container)
            frame = None if stream is None else next(container.decode(stream), None)
            if stream is None or frame is None or not frame.width * frame.height:
                return None
            ratio = frame.width * float(stream.sample_aspect_ratio or 1) / frame.height
            return 1 / ratio if orientation.is_lying(orientation.matrix(frame)) else ratio
    except (UserError, OSError, av.FFmpegError):
        return None


def _fit(facts: Container, frame: av.VideoFrame, side: int) -> tuple[int, int]:
    """(width, height) as players show it, with the longer side at most `side` pixels."""
    shape = frame.width * facts.pixel_aspect, float(frame.height)
    scale = min(1.0, side / max(shape))
    width, height = (max(1, round(length * scale)) for length in shape)
    return (height, width) if orientation.is_lying(orientation.matrix(frame)) else (width, height)
