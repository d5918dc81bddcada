"""SSD MobileNet v2 (Liu et al., arXiv 1512.02325; Sandler et al., arXiv 1801.04381) by OpenCV, in a
process of its own, so that looking for objects does not delay encoding. Imports none of our heavy
modules.

Knows one picture at a time; times and lines belong to the extractor
(encoders/text/sightings/objects.py).
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

SIDE = 300  # pixels, of the pictures that the model was trained on: a film's, squeezed to a square

# the classes of COCO (Lin et al., arXiv 1405.0312) by their number; "" for numbers without a class
CLASSES = tuple(
    name.strip()
    for name in """, person, bicycle, car, motorcycle, airplane, bus, train, truck, boat,
    traffic light, fire hydrant, , stop sign, parking meter, bench, bird, cat, dog, horse, sheep,
    cow, elephant, bear, zebra, giraffe, , backpack, umbrella, , , handbag, tie, suitcase, frisbee,
    skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard, surfboard,
    tennis racket, bottle, , wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich,
    orange, broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed, ,
    dining table, , , toilet, , tv, laptop, mouse, remote, keyboard, cell phone, microwave, oven,
    toaster, sink, refrigerator, , book, clock, vase, scissors, teddy bear, hair drier,
    toothbrush""".split(",")
)


class Sighting(NamedTuple):
    """A thing that is seen in one picture."""

    name: str
    score: float  # 0..1
    # left, top, right, bottom as shares of the picture; None for the picture as a whole
    box: tuple[float, float, float, float] | None


@dataclass(frozen=True, slots=True)
class Detector:
    """A detector of objects: its files, and the least score of what it reports."""

    graph: str  # path of the frozen graph
    layers: str  # path of the text that tells OpenCV its layers
    score: float

    def __call__(self, picture: np.ndarray) -> list[Sighting]:
        """The objects in a picture [300, 300, 3] uint8 RGB, the surest first."""
        import cv2  # comes with the extra objects

        network = _network(self.graph, self.layers)
        network.setInput(cv2.dnn.blobFromImage(picture, size=(SIDE, SIDE)))
        # rows of picture, class, score, left, top, right, bottom
        rows = network.forward().reshape(-1, 7)
        found = [
            Sighting(CLASSES[int(row[1])], round(float(row[2]), 4), _box(row[3:]))
            for row in rows
            if row[2] >= self.score and CLASSES[int(row[1])]
        ]
        return sorted(found, key=lambda one: (-one.score, one.name, one.box or ()))


@lru_cache(maxsize=1)
def _network(graph: str, layers: str):  # type: ignore[no-untyped-def]
    import cv2

    cv2.setNumThreads(1)  # several gain little, and rounding would depend on how many there are
    return cv2.dnn.readNetFromTensorflow(graph, layers)


def _box(sides: np.ndarray) -> tuple[float, float, float, float]:
    left, top, right, bottom = (round(float(side), 4) for side in np.clip(sides, 0, 1))
    return left, top, right, bottom
