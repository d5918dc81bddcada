"""Encodes videos into the bank one after another, in one thread, because a bank has one writer.

Knows the bank and frame sources; no HTTP. A video that is complete in the bank is never encoded
again, under any file name, because the bank identifies videos by content.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import av

from encoders.errors import FileError, UserError
from encoders.schema import FrameSource
from pipeline.qa import VideoQA
from pipeline.schema import IngestReport
from pipeline.server.errors import ApiError
from pipeline.server.files import StoredFile

NewSource = Callable[[StoredFile], FrameSource]


class StoppedError(Exception):
    """Encoding was stopped. Written segments stay in the bank, and a later job resumes there."""


@dataclass(eq=False)
class EncodeJob:
    """A video that waits for encoding or is being encoded."""

    file: StoredFile
    seconds: float = 0.0  # of video encoded so far
    stop: threading.Event = field(default_factory=threading.Event)
    done: "Future[IngestReport]" = field(default_factory=Future)

    def __post_init__(self) -> None:
        # a running future cannot be cancelled, so one client that gives up cannot stop the others
        self.done.set_running_or_notify_cancel()

    @property
    def share(self) -> float:
        """Encoded share of the video, 0..1."""
        return min(self.seconds / max(self.file.duration, 1e-6), 1.0)


class EncodeQueue:
    """Call `submit(file)` and wait for the job's `done`. Safe to use from several threads."""

    def __init__(self, qa: VideoQA, new_source: NewSource, waiting: int) -> None:
        """waiting: videos that may wait while another one is encoded."""
        self.runs = 0  # jobs that wrote at least one segment
        self.frames = 0  # frames encoded
        self._qa, self._new_source, self._waiting = qa, new_source, waiting
        self._lock, self._is_closed = threading.RLock(), False
        self._jobs: dict[str, EncodeJob] = {}  # by video id
        self._executor = ThreadPoolExecutor(1, "encoder")
        # whether a video is watched as it plays, by its id: that writes it as well
        self.is_played: Callable[[str], bool] = lambda video_id: False

    def __len__(self) -> int:
        return len(self._jobs)

    def is_complete(self, file: StoredFile) -> bool:
        """Whether the bank has the whole video."""
        video = self._qa.bank.catalog.video(file.video_id)
        return (
            video is not None and video.finished and not self._qa.bank.catalog.gaps(file.video_id)
        )

    def share(self, file: StoredFile) -> float | None:
        """Encoded share of the video, 0..1; None when no job encodes it."""
        job = self._jobs.get(file.video_id)
        return None if job is None else job.share

    def submit(self, file: StoredFile) -> EncodeJob | None:
        """The job that encodes this video, new or already queued; None when the bank has it.

        ApiError 409 while it is watched as it plays, 429 when too many videos wait, 503 after
        `close`.
        """
        with self._lock:
            if self._is_closed:
                raise ApiError(503, "The server is being shut down.")
            job = self._jobs.get(file.video_id)
            if job is not None and not job.stop.is_set():
                return job
            if self.is_complete(file):
                return None
            if self.is_played(file.video_id):
                raise ApiError(
                    409,
                    f"{file.filename} is being watched as it plays; ask about "
                    f"stream:{file.video_id}, or stop it first.",
                    code="is_played",
                )
            if len(self._jobs) > self._waiting:
                raise ApiError(
                    429,
                    f"{len(self._jobs)} videos wait to be encoded; try again later.",
                    retry_after=10,
                )
            job = EncodeJob(file)
            self._jobs[file.video_id] = job
            self._executor.submit(self._run, job)
            return job

    @contextmanager
    def hold(self, file: StoredFile) -> Iterator[None]:
        """No job of this video begins meanwhile. ApiError 409 where one is under way."""
        with self._lock:
            if file.video_id in self._jobs:
                raise ApiError(
                    409, f"{file.filename} is being encoded already; ask about it at once."
                )
            yield

    def drop(self, file: StoredFile) -> "Future[None]":
        """Remove a video from the bank. Stops its job first. ApiError 503 after `close`."""
        with self._lock:
            if self._is_closed:
                raise ApiError(503, "The server is being shut down.")
            if (job := self._jobs.get(file.video_id)) is not None:
                job.stop.set()
            # in the encoder's thread, which is the bank's one writer
            return self._executor.submit(self._drop, file.video_id)

    def close(self) -> None:
        """Stop all jobs. Written segments stay in the bank."""
        with self._lock:
            self._is_closed = True
            for job in self._jobs.values():
                job.stop.set()
        self._executor.shutdown()

    def _run(self, job: EncodeJob) -> None:
        written = 0

        def progress(seconds: float, _nbytes: int) -> None:
            nonlocal written
            written += 1
            job.seconds = seconds
            if job.stop.is_set():
                raise StoppedError

        result: IngestReport | None = None
        failure: BaseException | None = None
        try:
            if job.stop.is_set():
                raise StoppedError
            before = sum(row.frames for row in self._qa.bank.catalog.segments(job.file.video_id))
            result = self._qa.ingest(self._new_source(job.file), progress)
            self.frames += result.frames - before
        except FileError as error:  # with the client's name for it
            failure = UserError(f"{job.file.filename} {error.problem}")
        except av.FFmpegError as error:
            failure = UserError(f"{job.file.filename} cannot be decoded ({error.strerror})")
        except BaseException as error:
            failure = error
        self.runs += bool(written)
        with self._lock:
            if self._jobs.get(job.file.video_id) is job:
                del self._jobs[job.file.video_id]
        if failure is not None:
            job.done.set_exception(failure)
        elif result is not None:
            job.done.set_result(result)

    def _drop(self, video_id: str) -> None:
        if self._qa.bank.catalog.video(video_id) is not None:
            self._qa.bank.drop(video_id)
