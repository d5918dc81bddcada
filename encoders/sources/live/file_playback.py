"""A file that is played as if it were live. Knows clocks; nothing of files."""

import threading
import time
from collections.abc import Iterator

from encoders.detail import DetailedSource
from encoders.errors import SourceClosed, UserError
from encoders.schema import Frames, FrameSource, ResumableSource, VideoInfo


class FilePlayback:
    """A file, frame by frame at its own pace. Every frame is delivered, however late, because a
    file can wait.
    """

    is_replayable = True
    dropped = reconnects = 0

    def __init__(self, source: FrameSource, speed: float = 1.0) -> None:
        """speed: times real time; infinite = as fast as the caller takes the frames."""
        if not speed > 0:
            raise UserError(
                f"speed={speed} does not play a file; use 1 for real time, or inf for as fast as "
                "it goes"
            )
        self._source, self._speed = source, speed
        self._closed = threading.Event()
        # video time of the last frame; monotonic second at which the next one is due
        self._now, self._due = 0.0, 0.0
        self.frames_sampled = 0

    @property
    def info(self) -> VideoInfo:
        return self._source.info

    def resume(self, before: VideoInfo) -> None:
        """As the file does."""
        if isinstance(self._source, ResumableSource):
            self._source.resume(before)

    def add_detail(self, size: tuple[int, int]) -> None:
        """As the file does."""
        if isinstance(self._source, DetailedSource):
            self._source.add_detail(size)

    @property
    def is_idle(self) -> bool:
        return time.monotonic() < self._due

    @property
    def now(self) -> float:
        return self._now

    def start_clock(self, start: float) -> None:
        """Returns None: the recording time of a file is unknown."""

    def frames(self, start: float = 0.0) -> Iterator[Frames]:
        """Frames from `start` on; playback begins now. SourceClosed if it is closed."""
        zero: float | None = None  # monotonic second of video second 0
        for batch in self._source.frames(start):
            for number in range(len(batch)) if self._speed < float("inf") else (None,):
                frames = batch if number is None else batch.part(number, number + 1)
                if number is not None:
                    at = float(frames.times[0]) / self._speed
                    zero = time.monotonic() - at if zero is None else zero
                    self._due = zero + at
                    self._closed.wait(max(0.0, self._due - time.monotonic()))
                    later = (
                        batch.times[number + 1]
                        if number + 1 < len(batch)
                        else 2 * batch.times[-1] - batch.times[-2:][0]
                    )
                    self._due = zero + float(later) / self._speed
                if self._closed.is_set():
                    raise SourceClosed
                self._now = float(frames.times[-1])
                self.frames_sampled += len(frames)
                yield frames

    def close(self) -> None:
        self._closed.set()
