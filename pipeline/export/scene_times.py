"""Where the picture of a film changes most: seconds for a contact sheet, without a model or a bank.

Knows films; no search.
"""

from itertools import pairwise
from pathlib import Path

import numpy as np

from encoders.sources.container import inspect
from encoders.sources.pictures import pictures_at

_LOOKS = 6  # pictures that are looked at for each scene
_MOST_LOOKS = 600
_SIDE = 32  # pixels of the longer side


def scene_spans(
    film: Path, count: int, start: float = 0.0, end: float | None = None
) -> list[tuple[float, float]]:
    """At most `count` stretches of a film, in seconds and in time order, that look alike in
    themselves: the film is cut where neighbors among evenly spread pictures differ most.

    start, end: the part of the film; None: its end. UserError if the file is not a video.
    """
    facts = inspect(film)
    end = facts.end if end is None else min(end, facts.end)
    shown = facts.times[(facts.times >= start) & (facts.times < end)]
    looks = min(_LOOKS * count, _MOST_LOOKS, max(len(shown), 1))
    step = (end - start) / looks
    seconds = start + step * (np.arange(looks) + 0.5)
    pictures = list(pictures_at(film, seconds.tolist(), _SIDE))
    changes = np.array(
        [
            0.0 if one is None or two is None else np.abs(one.astype(np.float32) - two).mean()
            for one, two in pairwise(pictures)
        ]
    )
    cuts = list[int]()  # a scene begins with picture cut + 1
    for place in np.argsort(-changes, kind="stable").tolist():
        if len(cuts) == count - 1:
            break
        if all(abs(place - other) > 1 for other in cuts):
            cuts.append(place)
    edges = [start, *(float(start + step * (cut + 1)) for cut in sorted(cuts)), end]
    return list(pairwise(edges))
