"""What the pictures of a video show, read in processes next to the encoder, as text spans.

Few of the frames are chosen, workers read them, and a tracker joins repeated readings to lines.
Every SPAN_S seconds all state starts anew. So a text span depends only on its own frames, and an
interrupted run continues with the same lines; what stays in the picture across the boundary gives
two lines. Knows no recognizer and no kind of line.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import av
import numpy as np

from encoders.sources.ffmpeg_name import ffmpeg_name
from encoders.sources.file import FileSource
from encoders.text.lines import TextLine, TextSpan, VideoFile
from encoders.text.worker_pool import worker_executor

SPAN_S = 120.0
_WAITING = 6  # pictures waiting for a worker: 2.8 MB each at 720p

Reading = TypeVar("Reading")  # what a worker finds in one picture
Read = TypeVar("Read", contravariant=True)


class FrameSelector(Protocol):
    """Chooses frames of one text span."""

    # seconds: since when the picture differs from the one that was read last; None: not known
    changed_at: float | None

    def wants(self, picture: np.ndarray, time: float) -> bool:
        """True if this frame is to be read. picture: [height, width, 3] uint8; time: seconds,
        rising.
        """
        ...


class ReadingTracker(Protocol[Read]):
    """Joins the readings of one text span to lines."""

    def take(self, time: float, reading: Read, changed_at: float) -> None:
        """Add the reading of the frame at `time`. changed_at: since when the picture differs from
        the one read before.
        """
        ...

    def finish(self, end: float) -> tuple[TextLine, ...]:
        """All lines of the text span, which ends at `end`, in time order."""
        ...


class EveryFrame:
    """A selector that wants every frame."""

    changed_at: float | None = None

    def wants(self, picture: np.ndarray, time: float) -> bool:
        """True."""
        return True


@dataclass(frozen=True)
class PictureReader(Generic[Reading]):
    """Reads the frames of one pass over a video.

    fps: frames a second that the source delivers. workers: reading processes; 0 = this process.
    read: reads one picture [height, width, 3] uint8; a function of a module, which a new process
    can import. selector, tracker: make those of a text span. end: seconds, of the video.
    """

    source: FileSource
    fps: float
    workers: int
    read: Callable[[np.ndarray], Reading]
    selector: Callable[[], FrameSelector]
    tracker: Callable[[], ReadingTracker[Reading]]
    end: float = math.inf

    def spans(self, after: float = 0.0) -> Iterator[TextSpan]:
        """One for every two minutes, from second `after` on."""
        with worker_executor(self.workers) as executor:
            work = _SpanReader(self, executor, after)
            last_time = after
            for batch in self.source.frames(after):
                for picture, time in zip(batch.pixels, batch.times.tolist(), strict=True):
                    while time >= work.stop:
                        yield work.finished(work.stop, last=False)
                        work = _SpanReader(self, executor, work.stop)
                    work.add(picture, time)
                    last_time = time
            end = min(last_time + 1.0 / self.fps, max(self.end, last_time))
            yield work.finished(end, last=True)


class _SpanReader(Generic[Reading]):
    """One text span on its way through the workers."""

    def __init__(self, reader: PictureReader[Reading], executor: Executor, start: float) -> None:
        self._reader, self._executor, self._start = reader, executor, start
        self.stop = (start // SPAN_S + 1) * SPAN_S
        self._selector, self._tracker = reader.selector(), reader.tracker()
        self._waiting: deque[tuple[float, float, Future[Reading]]] = deque()

    def add(self, picture: np.ndarray, time: float) -> None:
        """One frame: [height, width, 3] uint8 at `time` seconds."""
        if not self._selector.wants(picture, time):
            return
        changed_at = self._selector.changed_at if self._selector.changed_at is not None else time
        self._selector.changed_at = None
        future = self._executor.submit(self._reader.read, picture)
        self._waiting.append((time, changed_at, future))
        while len(self._waiting) > _WAITING:
            self._take()

    def finished(self, end: float, last: bool) -> TextSpan:
        """The text span with its lines; it ends at `end` seconds."""
        while self._waiting:
            self._take()
        return TextSpan(self._start, end, self._tracker.finish(end), last)

    def _take(self) -> None:
        time, changed_at, future = self._waiting.popleft()
        self._tracker.take(time, future.result(), changed_at)


def shorter_side(video: VideoFile) -> int:
    """Pixels of the shorter side of the pictures, as the head of the file says; 0 without any."""
    with av.open(ffmpeg_name(video.path), metadata_errors="replace") as container:
        sides = [min(one.width, one.height) for one in container.streams.video]
    return sides[0] if sides else 0
