"""Text on the screen, read by rapidocr, whose wheel contains its models. Works in processes next to
the encoder.

Frames come at a steady rate and at their own size (short side at most `short_side`).
keyframe_selector.py selects few of them, workers read them, and line_tracker.py joins repeated
readings to lines; picture_reader.py leads them. A line is known from the frame on in which its
words were read.
"""

import importlib.metadata
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from encoders import extras
from encoders.errors import UserError
from encoders.sources.container import inspect, time_rules
from encoders.sources.file import FileSource
from encoders.sources.pictures import pictures_at
from encoders.text import ocr_worker
from encoders.text.line_tracker import LineTracker
from encoders.text.lines import TextSpan, VideoFile
from encoders.text.picture_reader import SPAN_S, PictureReader, shorter_side

CREDIT = 4.0  # readings allowed at once at the start of a text span
_LARGEST = 16_384  # pixels of the longer side: pictures at their own size
_TRIES = 8
_READABLE = 240  # pixels of the shorter side below which hardly any print can be read


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
        return shorter_side(video) >= _READABLE

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
        # imported here: it needs OpenCV, which comes with rapidocr
        from encoders.text.keyframe_selector import KeyframeSelector

        width, height = size_of(video, self.short_side)
        return PictureReader(
            FileSource(
                video.path,
                self.fps,
                width=width,
                height=height,
                batch=4,
                start=video.begin,
                end=video.end,
            ),
            self.fps,
            self.workers,  # they load onnxruntime and nothing of torch
            ocr_worker.read,
            lambda: KeyframeSelector(
                credit_per_second(self.every), CREDIT, self.policy, refresh=self.refresh
            ),
            lambda: LineTracker(video.video_id, self.alike, self.confidence),
        ).spans(after)


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
