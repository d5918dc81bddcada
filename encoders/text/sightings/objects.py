"""Objects in the pictures, by SSD MobileNet v2, which knows the 80 classes of COCO. Works in
processes next to the encoder.

Frames are read every few seconds, or where the whole picture changes. sighting_tracker.py joins
what is seen again to lines, each with the class, its score and its box.
"""

import importlib.metadata
from collections.abc import Iterator
from dataclasses import dataclass

from encoders import extras
from encoders.errors import UserError
from encoders.sources.container import inspect, time_rules
from encoders.sources.file import FileSource
from encoders.text.lines import TextSpan, VideoFile
from encoders.text.picture_reader import EveryFrame, FrameSelector, PictureReader, shorter_side
from encoders.text.sightings.detector import SIDE, Detector
from encoders.text.sightings.detector_weights import GRAPH, LAYERS, SSD_MOBILENET
from encoders.text.sightings.sighting_tracker import SightingTracker

KIND = "object"


@dataclass(frozen=True)
class Objects:
    """The `objects` extractor.

    every: seconds between frames that are looked at. policy: steady (each of them is read) or scene
    (those at which the whole picture has changed).
    score: of the detector, from which on an object begins a line. keep: the same, for going on.
    gap: seconds for which an object may be out of sight within one line.
    minimum: seconds that a line must last.
    workers: detecting processes; 0 = this process.
    """

    every: float = 1.0
    policy: str = "steady"
    score: float = 0.6
    keep: float = 0.3
    gap: float = 3.0
    minimum: float = 2.0
    workers: int = 1
    name = "objects"

    def __post_init__(self) -> None:
        if self.policy not in ("steady", "scene"):
            raise UserError(f"text.objects.policy={self.policy} is not known; use steady or scene")
        for name, least in {"every": 1e-2, "gap": 0, "minimum": 0, "workers": 0}.items():
            if not getattr(self, name) >= least:
                raise UserError(
                    f"text.objects.{name}={getattr(self, name)} is too small; use {least:g} or more"
                )
        for name in ("score", "keep"):
            if not 0 < getattr(self, name) <= 1:
                raise UserError(
                    f"text.objects.{name}={getattr(self, name)} is no score; use more than 0 and "
                    "at most 1"
                )

    def missing(self) -> str:
        """The missing packages, with the remedy; "" if OpenCV and the weights are installed."""
        return extras.missing_line("objects", *extras.EXTRAS["objects"])

    def applies_to(self, video: VideoFile) -> bool:
        """True if there are pictures."""
        return shorter_side(video) > 0

    def made_with(self, video: VideoFile) -> str:
        """Weights and settings, without the number of workers, which changes nothing."""
        version = importlib.metadata.version("opencv-python-headless")
        names = ("every", "policy", "score", "keep", "gap", "minimum")
        return (
            f"Objects({SSD_MOBILENET.name} {SSD_MOBILENET.fingerprint}, opencv {version}, "
            + ", ".join(f"{name}={getattr(self, name)}" for name in names)
            + f"{time_rules(video.path)})"
        )

    def spans(self, video: VideoFile, after: float = 0.0) -> Iterator[TextSpan]:
        """One for every two minutes. UserError if the weights are not what they should be."""
        folder, end = SSD_MOBILENET.folder(), inspect(video.path).end
        end = end if video.end is None else min(end, video.end)
        # a film may be shorter than any line
        minimum = min(self.minimum, max(end - video.begin, 0.0))
        return PictureReader(
            FileSource(
                video.path,
                1.0 / self.every,
                width=SIDE,
                height=SIDE,
                batch=4,
                start=video.begin,
                end=video.end,
            ),
            1.0 / self.every,
            self.workers,
            Detector(str(folder / GRAPH), str(folder / LAYERS), min(self.score, self.keep)),
            self._selector,
            lambda: SightingTracker(video.video_id, KIND, self.score, self.gap, minimum),
            end,
        ).spans(after)

    def _selector(self) -> FrameSelector:
        if self.policy == "steady":
            return EveryFrame()
        # imported here: it needs OpenCV, which comes with the extra
        from encoders.text.keyframe_selector import KeyframeSelector

        return KeyframeSelector(1.0 / self.every, policy=self.policy)
