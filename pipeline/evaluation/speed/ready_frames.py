"""Frames in memory, the same for every arm, and a file to decode. Knows no model and no arm."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from encoders.errors import UserError
from encoders.schema import Frames, FrameSource, VideoInfo, join_frames
from pipeline.needle_world import video

_BATCH = 16
# pixels: noise in coarse cells, so that neighbouring frames differ
_CELL = 32


class ReadyFrames:
    """A `FrameSource` over frames that are already decoded."""

    def __init__(self, frames: Frames, fps: float) -> None:
        self._frames = frames
        self.info = VideoInfo(
            frames.video_id, "in memory", (float(frames.times[-1]) + 1 / fps), "none"
        )

    def frames(self, start: float = 0.0) -> Iterator[Frames]:
        """Batches from `start` seconds on."""
        for first in range(
            int(np.searchsorted(self._frames.times, start)), len(self._frames), _BATCH
        ):
            yield self._frames.part(first, min(first + _BATCH, len(self._frames)))


def noise_frames(
    count: int, fps: float, size: tuple[int, int], *, first: int = 0, video_id: str = "bench"
) -> Frames:
    """Frames first..first+count-1 of a synthetic video; size: (width, height)."""
    width, height = size
    shape = (-(-height // _CELL), -(-width // _CELL), 3)
    pixels = np.empty((count, height, width, 3), np.uint8)
    for i in range(count):
        coarse = np.random.default_rng(first + i).integers(1, 255, shape, dtype=np.uint8)
        pixels[i] = coarse.repeat(_CELL, axis=0).repeat(_CELL, axis=1)[:height, :width]
    return Frames(video_id, pixels, np.arange(first, first + count) / fps)


def first_frames(source: FrameSource, count: int, path: str) -> Frames:
    """The first frames of a file. UserError when it has fewer."""
    batches: list[Frames] = []
    for batch in source.frames():
        batches.append(batch)
        if sum(map(len, batches)) >= count:
            break
    frames = join_frames(batches) if batches else None
    if frames is None or len(frames) < count:
        have = 0 if frames is None else len(frames)
        raise UserError(
            f"{path} gives {have} frames, and lengths= asks for {count}; use a longer video, fps= "
            "or shorter lengths."
        )
    return frames.part(0, count)


def write_film(
    path: Path, seconds: float, size: tuple[int, int] = (1280, 720), fps: int = 24
) -> None:
    """Write an H.264 file of procedural footage, to time decoding where no video is given."""
    video.write(path, (), seconds, video.procedural_footage(0, size), fps=fps, size=size)
