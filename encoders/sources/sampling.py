"""Which picture answers each point of the sampling grid: what is shown there.

Points of the grid are k / fps, k = 0, 1, 2, ... A picture is shown until the next one. If the next
one comes within a usual step of a point, it is sampled with its own time, as at any constant rate;
otherwise the picture that stands at the point is sampled with the time of the point. Where nothing
stands (before the first picture, and in damage), the next picture is sampled once for all points.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from encoders.schema import ticks

# a usual step and its jitter; at most as much, so that slides are sampled while they stand
_STEPS, _MOST_S = 1.5, 2.0
# a picture that stands longer than this is sampled at fewer points from then on
STANDS_S, SPARSE_S = 300.0, 10.0
_EPS_S = 1e-3  # of encoders.schema.ticks


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """What a pass over a whole film samples, in time order."""

    numbers: np.ndarray  # [S] int64: pictures; one that stands comes several times
    times: np.ndarray  # [S] float64 seconds, rising
    stands: np.ndarray  # [S] bool: True for a picture that stands at a point of the grid

    def without_standing(self, numbers: Sequence[int]) -> "Samples":
        """These pictures do not stand: others came behind them and are lost."""
        stays = ~(self.stands & np.isin(self.numbers, numbers))
        return Samples(self.numbers[stays], self.times[stays], self.stands[stays])


def sampling_mask(times: np.ndarray, fps: float, before: float = -math.inf) -> np.ndarray:
    """[T] bool: True for frames that are the first at or after a point of the sampling grid.
    before: time of the frame before them.
    """
    points = ticks(np.concatenate([[before], times]), fps)  # [T + 1]
    points[0] = max(points[0], -1.0)
    mask: np.ndarray = np.diff(points) > 0
    return mask


def first_samples(times: np.ndarray, fps: float) -> Samples:
    """The rule of earlier versions: each picture that is the first at or after a point, once."""
    numbers = np.flatnonzero(sampling_mask(times, fps))
    return Samples(numbers, times[numbers], np.zeros(len(numbers), dtype=bool))


def keyframe_samples(times: np.ndarray, keys: np.ndarray, fps: float) -> Samples:
    """Each picture that is decoded alone, with its own time, if it is the first of them at or after
    a point. keys: [K] numbers of these pictures, rising.
    """
    numbers = keys[sampling_mask(times[keys], fps)]
    return Samples(numbers, times[numbers], np.zeros(len(numbers), dtype=bool))


def shown_samples(
    times: np.ndarray, end: float, step: float, fps: float, whole_until: float = math.inf
) -> Samples:
    """What is shown at each point. times: [T] seconds of all pictures, rising; end: at which the
    last one ends; step: the usual seconds from one picture to the next; whole_until: seconds from
    which on pictures may be missing, so that nothing is known to stand.
    """
    near = min(_STEPS * step, _MOST_S) + _EPS_S
    reached = ticks(times, fps)  # [T] the last point that each picture has reached
    fresh = sampling_mask(times, fps)
    # the last point that the picture before answers by standing there
    stops = np.append(times[1:], end) - near  # [T]
    last_standing = np.ceil(stops * fps) - 1  # the last point below
    count = np.maximum(0, last_standing - reached).astype(np.int64)  # [T]
    # a picture is too late for its point if the one before stands there
    late = np.append(False, last_standing[:-1] >= reached[1:])
    own = np.flatnonzero(fresh & ~late)
    standing, points = _standing(count, reached, fps)
    numbers = np.concatenate([own, standing])
    at = np.concatenate([times[own], points])
    stands = np.concatenate([np.zeros(len(own), bool), np.ones(len(standing), bool)])
    order = np.argsort(at, kind="stable")
    order = order[~stands[order] | (at[order] < whole_until)]
    return Samples(numbers[order], at[order], stands[order])


def _standing(count: np.ndarray, reached: np.ndarray, fps: float) -> tuple[np.ndarray, np.ndarray]:
    """Numbers and times of pictures that stand at points: all points for the first five minutes,
    then one in every ten seconds. count: [T] points at which each picture stands.
    """
    many = max(1, round(STANDS_S * fps))
    stride = max(1, round(SPARSE_S * fps))
    repeats = np.minimum(count, many) + np.maximum(0, count - many) // stride
    numbers = np.repeat(np.arange(len(count)), repeats)
    if not len(numbers):
        return numbers, np.zeros(0)
    firsts = np.cumsum(repeats) - repeats
    rank = np.arange(len(numbers)) - np.repeat(firsts, repeats)  # 0, 1, ... of each
    offset = np.where(rank < many, rank + 1, many + (rank - many + 1) * stride)
    return numbers, (reached[numbers] + offset) / fps
