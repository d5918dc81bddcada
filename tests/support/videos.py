"""Videos for tests: every picture carries its own number, so a test can read which frame it got.

The number is painted as 16 black or white blocks. They are coarse enough to survive lossy codecs,
scaling down to 32 pixels and a change of decoder. Knows PyAV and nothing of ours.
"""

import os
import struct
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from pipeline.export.cutting.process_priority import own_priority

BITS_HIGH, BITS_WIDE = 4, 4
CLOCK = Fraction(1, 60_000)  # MPEG-4 refuses anything finer than 1/65535
Paint = Callable[[int, float], np.ndarray]  # (frame number, seconds) -> [height, width, 3] uint8


def numbered(number: int, size: tuple[int, int]) -> np.ndarray:
    """A picture that says its number: [height, width, 3] uint8."""
    width, height = size
    bits = np.array([(number >> bit) & 1 for bit in range(BITS_HIGH * BITS_WIDE)], dtype=np.uint8)
    rows = np.arange(height) * BITS_HIGH // height
    columns = np.arange(width) * BITS_WIDE // width
    blocks = (40 + 170 * bits).astype(np.uint8).reshape(BITS_HIGH, BITS_WIDE)
    return np.repeat(blocks[rows][:, columns, None], 3, axis=2)


def read_number(picture: np.ndarray) -> int:
    """The number painted by `numbered`, from the middle of each block."""
    height, width = picture.shape[:2]
    number = 0
    for bit in range(BITS_HIGH * BITS_WIDE):
        row, column = divmod(bit, BITS_WIDE)
        y, x = (
            (2 * row + 1) * height // (2 * BITS_HIGH),
            (2 * column + 1) * width // (2 * BITS_WIDE),
        )
        number |= int(picture[y - 1 : y + 2, x - 1 : x + 2].mean() > 125) << bit
    return number


def read_numbers(pixels: np.ndarray) -> list[int]:
    """The numbers of a run of pictures."""
    return [read_number(picture) for picture in pixels]


def write_video(
    path: Path,
    seconds: float,
    fps: Fraction | float = 25,
    *,
    size: tuple[int, int] = (64, 64),
    codec: str = "libx264",
    times: Sequence[float] | None = None,
    paint: Paint | None = None,
    options: dict[str, str] | None = None,
    muxer: dict[str, str] | None = None,
    pix_fmt: str = "yuv420p",
    clock: Fraction = CLOCK,
) -> list[float]:
    """Write a video and return the seconds of its frames. times: of each frame, for a variable
    frame rate.

    clock: seconds per tick; MPEG-1 and MPEG-2 want one tick a picture.
    options go to the codec (default: a keyframe every 25 frames, and B-frames where x264 wants
    them), muxer options to the container.
    """
    rate = Fraction(fps).limit_denominator(1001)
    if times is None:
        times = [float(number / rate) for number in range(round(seconds * rate))]
    os.environ.setdefault("SVT_LOG", "1")  # the AV1 encoder prints a page otherwise
    with av.open(str(path), "w", options=muxer or {}) as container:
        stream = container.add_stream(
            codec, rate=rate, options={"g": "25"} if options is None else options
        )
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height = size
        stream.pix_fmt = pix_fmt
        stream.time_base = clock
        stream.codec_context.time_base = clock
        stream.codec_context.thread_count = 1  # tests run beside other work
        for number, time in enumerate(times):
            picture = numbered(number, size) if paint is None else paint(number, time)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts, frame.time_base = round(time / clock), clock
            with own_priority():
                container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return list(times)


def write_with_sound(path: Path, times: Sequence[float], sound_seconds: float) -> None:
    """A film of 25 pictures a second at these times, each with its number, with silent sound from
    time 0 on.
    """
    with av.open(str(path), "w") as container:
        codec = "mpeg4" if path.suffix == ".avi" else "libx264"
        film = container.add_stream(codec, rate=25, options={"g": "25"})
        assert isinstance(film, av.VideoStream)
        film.width = film.height = 64
        film.time_base = film.codec_context.time_base = Fraction(1, 1000)
        sound = container.add_stream("aac", rate=16_000)
        for number, time in enumerate(times):
            picture = av.VideoFrame.from_ndarray(numbered(number, (64, 64)), format="rgb24")
            picture.pts, picture.time_base = round(time * 1000), Fraction(1, 1000)
            container.mux(film.encode(picture))
        container.mux(film.encode())
        for start in range(0, int(sound_seconds * 16_000), 1024):
            container.mux(sound.encode(_silence(start)))
        container.mux(sound.encode())


def _silence(start: int) -> av.AudioFrame:
    """1024 samples at 16 kHz, the first one at sample `start`."""
    frame = av.AudioFrame.from_ndarray(
        np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono"
    )
    frame.sample_rate, frame.pts = 16_000, start
    return frame


def write_audio(path: Path, seconds: float = 1.0) -> None:
    """A file with one silent audio track and no picture."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16_000)
        for start in range(0, int(seconds * 16_000), 1024):
            container.mux(stream.encode(_silence(start)))
        container.mux(stream.encode())


def turn(path: Path, signs: tuple[int, int, int, int] = (0, 1, -1, 0)) -> None:
    """Set the matrix in an MP4 that tells players how to turn the picture: x' = a x + c y and
    y' = b x + d y. By default that is 90 degrees clockwise.
    """
    a, b, c, d = (sign << 16 for sign in signs)
    data = bytearray(path.read_bytes())
    # version, flags, two times, id, duration, layer, volume: then nine numbers
    matrix = data.index(b"tkhd") + 4 + 40
    data[matrix : matrix + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(bytes(data))
