"""Videos into the bank, one after another, in one thread: the bank has one writer.

Knows the bank and sources; no HTTP. Whoever needs a video waits for it here; a video that the bank holds whole is not encoded
again, whoever handed it in and under whatever name: the bank goes by its content.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from encoders.schema import FrameSource
from pipeline.qa import VideoQA
from pipeline.schema import Ingested
from pipeline.server.errors import ApiError
from pipeline.server.files import StoredFile

NewSource = Callable[[StoredFile], FrameSource]


class StoppedError(Exception):
    """The encoding was ended from outside; what was written stays, and a later one goes on from there."""


@dataclass(eq=False)
class Encoding:
    """A video on its way into the bank."""

    file: StoredFile
    seconds: float = 0.0  # of video, encoded so far
    stop: threading.Event = field(default_factory=threading.Event)
    done: "Future[Ingested]" = field(default_factory=Future)

    def __post_init__(self) -> None:
        # one who no longer waits must not cancel it for the others
        self.done.set_running_or_notify_cancel()

    @property
    def share(self) -> float:
        """0..1"""
        return min(self.seconds / max(self.file.duration, 1e-6), 1.0)


class Encodings:
    """`want(file)` and wait for its `done`. Threads may use it at the same time."""

    def __init__(self, qa: VideoQA, new_source: NewSource, waiting: int) -> None:
        """waiting: videos that may wait for their turn."""
        self.runs = 0  # encodings that made at least one segment
        self.frames = 0  # of video that went through the encoder
        self._qa, self._new_source, self._waiting = qa, new_source, waiting
        self._lock = threading.RLock()
        self._under_way: dict[str, Encoding] = {}  # by video
        self._pool = ThreadPoolExecutor(1, "encoder")

    def __len__(self) -> int:
        return len(self._under_way)

    def is_whole(self, file: StoredFile) -> bool:
        """Whether the bank holds all of it."""
        video = self._qa.bank.video(file.video_id)
        return video is not None and video.finished and not self._qa.bank.gaps(file.video_id)

    def share(self, file: StoredFile) -> float | None:
        """Of the video that is encoded, while it is on its way."""
        encoding = self._under_way.get(file.video_id)
        return None if encoding is None else encoding.share

    def want(self, file: StoredFile) -> Encoding | None:
        """None when the bank has it; else its encoding, begun now or before. ApiError 429 when too many wait."""
        with self._lock:
            under_way = self._under_way.get(file.video_id)
            if under_way is not None and not under_way.stop.is_set():
                return under_way
            if self.is_whole(file):
                return None
            if len(self._under_way) > self._waiting:
                raise ApiError(
                    429,
                    f"{len(self._under_way)} videos wait to be encoded; try again later.",
                    retry_after=10,
                )
            encoding = Encoding(file)
            self._under_way[file.video_id] = encoding
            self._pool.submit(self._run, encoding)
            return encoding

    def drop(self, file: StoredFile) -> "Future[None]":
        """Take a video out of the bank, ending its encoding first."""
        with self._lock:
            if (under_way := self._under_way.get(file.video_id)) is not None:
                under_way.stop.set()
            # in the writer's thread: there is one
            return self._pool.submit(self._drop, file.video_id)

    def close(self) -> None:
        """End what is under way; what was written stays."""
        with self._lock:
            for encoding in self._under_way.values():
                encoding.stop.set()
        self._pool.shutdown()

    def _run(self, encoding: Encoding) -> None:
        written = 0

        def progress(seconds: float, _nbytes: int) -> None:
            nonlocal written
            written += 1
            encoding.seconds = seconds
            if encoding.stop.is_set():
                raise StoppedError

        done: Ingested | None = None
        failed: BaseException | None = None
        try:
            if encoding.stop.is_set():
                raise StoppedError
            before = sum(row.frames for row in self._qa.bank.segments(encoding.file.video_id))
            done = self._qa.ingest(self._new_source(encoding.file), progress)
            self.frames += done.frames - before
        except BaseException as error:
            failed = error
        self.runs += bool(written)
        with self._lock:
            if self._under_way.get(encoding.file.video_id) is encoding:
                del self._under_way[encoding.file.video_id]
        if failed is not None:
            encoding.done.set_exception(failed)
        elif done is not None:
            encoding.done.set_result(done)

    def _drop(self, video_id: str) -> None:
        if self._qa.bank.video(video_id) is not None:
            self._qa.bank.drop(video_id)
