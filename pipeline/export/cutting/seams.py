"""Whether a clip of copied and encoded pictures shows what the film shows: the seams, decoded.

Knows files; no search and no bank.
"""

from pathlib import Path

import numpy as np

from encoders.errors import UserError
from encoders.sources.container import Container, inspect
from encoders.sources.pictures import pictures_at
from pipeline.export.cutting.exact_pictures import ExactPictures

_SIDE = 160  # pixels of the longer side at which pictures are compared
_NEAR = 6.0  # grey levels by which an encoded picture is off, at most, in the mean
_AROUND = 3  # pictures on each side of a seam


def why_not_exact(facts: Container, cut: ExactPictures, clip: Path) -> str:
    """What is wrong with a clip; "" where it shows the pictures of the film at their times."""
    try:
        times = inspect(clip).times
    except UserError as error:
        return str(error)
    expected = np.maximum(facts.times[cut.first : cut.stop] - cut.start, 0.0)
    if len(times) != len(expected):
        return f"it has {len(times)} pictures in place of {len(expected)}"
    if np.abs(times - expected).max() > facts.step:
        return "its pictures come at other times"
    count = cut.stop - cut.first
    seams = (0, cut.copied_first - cut.first, cut.copied_stop - cut.first, count)
    near = sorted(
        {
            place
            for seam in seams
            for place in range(seam - _AROUND, seam + _AROUND)
            if 0 <= place < count
        }
    )
    seconds = [float(facts.times[cut.first + place]) + 2e-3 for place in near]
    # the first picture may stand for a millisecond
    shown_at = [float(times[place]) + 2e-3 if place else 0.0 for place in near]
    pairs = zip(
        near,
        pictures_at(facts.path, seconds, _SIDE),
        pictures_at(clip, shown_at, _SIDE),
        strict=True,
    )
    for place, ours, theirs in pairs:
        if ours is None:
            continue  # the film is damaged there
        if theirs is None or theirs.shape != ours.shape:
            return f"its picture {place} cannot be decoded"
        off = float(np.abs(ours.astype(np.int16) - theirs).mean())
        is_copied = cut.copied_first <= cut.first + place < cut.copied_stop
        if off > (0.0 if is_copied else _NEAR):
            return f"its picture {place} is off by {off:.1f} grey levels"
    return ""
