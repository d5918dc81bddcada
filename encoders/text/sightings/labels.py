"""What pictures show as a whole, by the classifier of clip=conse, which knows the 1000 classes of
ImageNet: kinds of animals, things, and places; no person.

The probability of a group, such as all breeds of dogs, is the sum over its classes. Sure classes
and groups become lines (sighting_tracker.py).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from encoders.errors import UserError
from encoders.models.imagenet.class_names import image_classes
from encoders.models.imagenet.efficientnet_lite import SIDE
from encoders.models.imagenet.image_classifier import ImageClassifier
from encoders.models.imagenet.lite0_package import LITE0
from encoders.schema import Frames
from encoders.sources.container import inspect, time_rules
from encoders.sources.file import FileSource
from encoders.text.lines import TextSpan, VideoFile
from encoders.text.picture_reader import EveryFrame, PictureReader, shorter_side
from encoders.text.sightings.class_groups import group_matrix, group_names
from encoders.text.sightings.detector import Sighting
from encoders.text.sightings.sighting_tracker import SightingTracker

KIND = "label"
_REVISION = 1  # of the groups


@dataclass(frozen=True)
class Labels:
    """The `labels` extractor.

    every: seconds between frames that are looked at.
    probability: from which on a class begins a line. keep: the same, for going on.
    gap: seconds for which a class may be less likely within one line.
    minimum: seconds that a line must last.
    """

    every: float = 1.0
    probability: float = 0.8
    keep: float = 0.4
    gap: float = 3.0
    minimum: float = 2.0
    name = "labels"

    def __post_init__(self) -> None:
        for name, least in {"every": 1e-2, "gap": 0, "minimum": 0}.items():
            if not getattr(self, name) >= least:
                raise UserError(
                    f"text.labels.{name}={getattr(self, name)} is too small; use {least:g} or more"
                )
        for name in ("probability", "keep"):
            if not 0 < getattr(self, name) <= 1:
                raise UserError(
                    f"text.labels.{name}={getattr(self, name)} is no probability; use more than 0 "
                    "and at most 1"
                )

    def missing(self) -> str:
        """The missing package, with the remedy; "" if the weights are installed."""
        return LITE0.missing()

    def applies_to(self, video: VideoFile) -> bool:
        """True if there are pictures."""
        return shorter_side(video) > 0

    def made_with(self, video: VideoFile) -> str:
        """Weights and settings."""
        names = ("every", "probability", "keep", "gap", "minimum")
        settings = ", ".join(f"{name}={getattr(self, name)}" for name in names)
        return (
            f"Labels({LITE0.name} {LITE0.fingerprint}, groups {_REVISION}, {settings}"
            f"{time_rules(video.path)})"
        )

    def spans(self, video: VideoFile, after: float = 0.0) -> Iterator[TextSpan]:
        """One for every two minutes. UserError if the weights are not what they should be."""
        end = inspect(video.path).end
        end = end if video.end is None else min(end, video.end)
        # a film may be shorter than any line
        minimum = min(self.minimum, max(end - video.begin, 0.0))
        source = FileSource(
            video.path,
            1.0 / self.every,
            width=SIDE,
            height=SIDE,
            batch=4,
            start=video.begin,
            end=video.end,
        )
        reader = PictureReader(
            source,
            1.0 / self.every,
            0,  # a picture takes as long as sending it to another process would
            Labeler(min(self.probability, self.keep)),
            EveryFrame,
            lambda: SightingTracker(video.video_id, KIND, self.probability, self.gap, minimum),
            end,
        )
        return reader.spans(after)


@dataclass(frozen=True)
class Labeler:
    """Pictures -> classes and groups from the probability `least` on."""

    least: float
    classifier: ImageClassifier = field(default_factory=ImageClassifier)

    def __call__(self, picture: np.ndarray) -> list[Sighting]:
        """picture: [height, width, 3] uint8. The surest first."""
        (row,) = self.classifier.probabilities(Frames("", picture[None], np.zeros(1)))
        groups = dict(zip(group_names(), (row @ group_matrix()).tolist(), strict=True))
        classes: dict[str, float] = {}
        for number in (row >= self.least).nonzero()[:, 0].tolist():
            classes[image_classes()[number].names] = float(row[number])
        found = [
            Sighting(name, round(min(probability, 1.0), 4), None)
            for name, probability in (groups | classes).items()
            if probability >= self.least
        ]
        return sorted(found, key=lambda one: (-one.score, one.name))
