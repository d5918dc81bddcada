"""Text on the screen, read by rapidocr, whose wheel contains its models. Works in processes next to
the encoder.

Frames come at a steady rate and at their own size (short side at most `short_side`).
keyframe_selector.py selects few of them, workers read them, and line_tracker.py joins repeated
readings to lines. Every SPAN_S seconds all state starts anew. So a text span depends only on its
own frames, and an interrupted run continues with the same lines; text that stays on the screen
across the boundary gives two lines. A line is known from the frame on in which its words were read.
"""

import importlib.metadata
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass

import av
import numpy as np

from encoders import extras
from encoders.errors import UserError
from encoders.sources.container import inspect, time_rules
from encoders.sources.ffmpeg_name import ffmpeg_name
from encoders.sources.file import FileSource
from encoders.sources.pictures import pictures_at
from encoders.text import ocr_worker
from encoders.text.line_tracker import LineTracker, plausible
from encoders.text.lines import TextSpan, VideoFile
from encoders.text.ocr_worker import OcrText
from encoders.text.worker_pool import worker_pool

SPAN_S = 120.0
CREDIT = 4.0  # readings allowed at once at the start of a text span
_LARGEST = 16_384  # pixels of the longer side: pictures at their own size
_TRIES = 8
_READABLE = 240  # pixels of the shorter side below which hardly any print can be read
_WAITING = 6  # pictures waiting for a worker: 2.8 MB each at 720p


@dataclass(frozen=True)
class Ocr:
    """The `ocr` extractor.

    fps: frames examined per second. every: seconds of video per reading, on average.
    policy: change, steady or scene (encoders/text/keyframe_selector.py).
    refresh: seconds after which a still picture is read again.
    short_side: pixels; a larger picture is scaled down to it.
    confidence: of the reader, below which a line is dropped. alike: share of letters that may
    differ within one line.
    workers: reading processes; 0 = this process.
    """

    fps: float = 2.0
    every: float = 4.0
    policy: str = "change"
    refresh: float = 30.0
    short_side: int = 720
    confidence: float = 0.6
    alike: float = 0.2
    workers: int = 1
    name = "ocr"

    def __post_init__(self) -> None:
        if self.policy not in ("change", "steady", "scene"):
            raise UserError(
                f"text.ocr.policy={self.policy} is not known; use change, steady or scene"
            )
        for name, least in {
            "fps": 1e-2,
            "every": 1e-2,
            "refresh": 0,
            "short_side": 32,
            "confidence": 0,
            "workers": 0,
        }.items():
            if not getattr(self, name) >= least:
                raise UserError(
                    f"text.ocr.{name}={getattr(self, name)} is too small; use {least:g} or more"
                )
        if not 0 <= self.alike < 1:
            raise UserError(
                f"text.ocr.alike={self.alike} is no share of letters; use 0 or more and less than 1"
            )

    def missing(self) -> str:
        """The missing packages, with the remedy; "" if rapidocr and onnxruntime are installed."""
        return extras.missing_line("ocr", *extras.EXTRAS["ocr"])

    def applies_to(self, video: VideoFile) -> bool:
        """True if the pictures are large enough for print that can be read."""
        with av.open(ffmpeg_name(video.path), metadata_errors="replace") as container:
            sides = [min(one.width, one.height) for one in container.streams.video]
        return bool(sides) and sides[0] >= _READABLE

    def made_with(self, video: VideoFile) -> str:
        """Version and settings, without the number of workers, which changes nothing."""
        version = importlib.metadata.version("rapidocr")
        names = ("fps", "every", "policy", "refresh", "short_side", "confidence", "alike")
        return (
            f"Ocr(rapidocr {version}, "
            + ", ".join(f"{name}={getattr(self, name)}" for name in names)
            + f"{time_rules(video.path)})"
        )

    def spans(self, video: VideoFile, after: float = 0.0) -> Iterator[TextSpan]:
        """One for every two minutes."""
        width, height = size_of(video, self.short_side)
        source = FileSource(
            video.path,
            self.fps,
            width=width,
            height=height,
            batch=4,
            start=video.begin,
            end=video.end,
        )

        with self._readers() as pool:
            work = _SpanReader(self, video, pool, after)
            last_time = after
            for batch in source.frames(after):
                for picture, time in zip(batch.pixels, batch.times.tolist(), strict=True):
                    while time >= work.stop:
                        yield work.finished(work.stop, last=False)
                        work = _SpanReader(self, video, pool, work.stop)
                    work.add(picture, time)
                    last_time = time
            yield work.finished(last_time + 1.0 / self.fps, last=True)

    def _readers(self) -> "ProcessPoolExecutor | nullcontext[None]":
        if not self.workers:
            return nullcontext()
        return worker_pool(self.workers)  # they load onnxruntime and nothing of torch


class _SpanReader:
    """One text span on its way through the readers."""

    def __init__(
        self, ocr: Ocr, video: VideoFile, pool: ProcessPoolExecutor | None, start: float
    ) -> None:
        # imported here: it needs OpenCV, which comes with rapidocr
        from encoders.text.keyframe_selector import KeyframeSelector

        self._ocr, self._pool, self._start = ocr, pool, start
        self.stop = (start // SPAN_S + 1) * SPAN_S
        self._selector = KeyframeSelector(
            credit_per_second(ocr.every), CREDIT, ocr.policy, refresh=ocr.refresh
        )
        self._repeats = LineTracker(video.video_id, ocr.alike)
        self._waiting: deque[tuple[float, float, Future[list[OcrText]]]] = deque()

    def add(self, picture, time: float) -> None:  # type: ignore[no-untyped-def]
        """One frame: [height, width, 3] uint8 at `time` seconds."""
        is_due = self._selector.wants(picture, time)
        if not is_due:
            return
        changed_at = self._selector.changed_at if self._selector.changed_at is not None else time
        self._selector.changed_at = None
        if self._pool is None:
            future: Future[list[OcrText]] = Future()
            future.set_result(ocr_worker.read(picture))
        else:
            future = self._pool.submit(ocr_worker.read, picture)
        self._waiting.append((time, changed_at, future))
        while len(self._waiting) > _WAITING:
            self._take()

    def finished(self, end: float, last: bool) -> TextSpan:
        while self._waiting:
            self._take()
        return TextSpan(self._start, end, self._repeats.finish(end), last)

    def _take(self) -> None:
        time, changed_at, future = self._waiting.popleft()
        self._repeats.take(time, plausible(future.result(), self._ocr.confidence), changed_at)


def credit_per_second(every: float) -> float:
    """Credit per second, so that a text span makes one reading per `every` seconds, its initial
    credit included.
    """
    return max(SPAN_S / every - CREDIT, 0.0) / SPAN_S


def size_of(video: VideoFile, short_side: int) -> tuple[int, int]:
    """(width, height) at which a video is read: as players show it, scaled down to the short
    side.
    """
    facts = inspect(video.path)
    # the first picture that can be decoded; usually the very first
    tries = np.linspace(video.begin, min(facts.end, video.end or facts.end), _TRIES)
    pictures = pictures_at(video.path, tries.tolist(), _LARGEST)
    picture = next((one for one in pictures if one is not None), None)
    if picture is None:
        raise UserError(f"{video.path} shows no picture that print could be read from")
    height, width = picture.shape[:2]
    scale = min(1.0, short_side / min(width, height))
    return max(2, round(width * scale)), max(2, round(height * scale))
