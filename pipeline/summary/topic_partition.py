"""Where one topic ends and the next begins, by meaning: the best partition of a list of vectors.

A chapter explains its vectors by their mean. The partition whose chapters explain most of the
variance is found exactly, by dynamic programming; each chapter costs a little more than a chapter
explains by chance (content vector segmentation, Alemi and Ginsparg, arXiv 1503.05543, with the
penalty of change point detection in place of a known number of chapters). Knows vectors and times;
no text, no bank.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_MOST_UNITS = 1500  # more are joined to groups: time and memory grow with the square


@dataclass(frozen=True, slots=True)
class TopicPartition:
    """Borders of a list of units: sentences, or scenes of a film without words.

    shortest: seconds of the shortest chapter.
    cost: of a chapter, in variances of one unit. A chapter of unrelated units explains 1, and the
    best of many such chapters a little more. 1.5 was chosen on talks for calibration
    (docs/measurements/2026-11_summary_epyc-2core.md).
    """

    shortest: float
    cost: float = 1.5

    def borders(self, rows: np.ndarray, starts: Sequence[float], end: float) -> list[int]:
        """Numbers of the units that begin a chapter, rising; the first unit is not among them.

        rows: [n, E] unit vectors. starts: seconds of each unit, rising. end: seconds at which the
        last unit ends.
        """
        count = len(rows)
        if count < 2:
            return []
        centered = rows.astype(float) - rows.mean(axis=0, dtype=float)
        variance = float((centered**2).sum() / (count - 1))
        if variance < 1e-9:
            return []
        step = -(-count // _MOST_UNITS)
        edges = [*range(0, count, step), count]  # between groups of units
        sums = np.concatenate([np.zeros((1, rows.shape[1])), np.cumsum(centered, axis=0)])[edges]
        times = np.array([starts[edge] if edge < count else end for edge in edges], dtype=float)
        return [edges[place] for place in self._best(sums, np.array(edges), times, variance)]

    def _best(
        self, sums: np.ndarray, edges: np.ndarray, times: np.ndarray, variance: float
    ) -> list[int]:
        """Places of the inner borders of the best partition; of equal ones the one with the
        earlier borders.

        sums: [m, E] of the units before each edge. edges: [m] units before it. times: [m] seconds.
        """
        products = sums @ sums.T  # [m, m]
        norms = np.diag(products)
        best = np.full(len(edges), -np.inf)
        best[0] = 0.0
        before = np.zeros(len(edges), dtype=int)
        for stop in range(1, len(edges)):
            first = np.arange(stop)
            explains = norms[stop] + norms[first] - 2 * products[stop, first]
            total = best[first] + explains / (edges[stop] - edges[first]) - self.cost * variance
            total[times[stop] - times[first] < self.shortest] = -np.inf
            total[~np.isfinite(best[first])] = -np.inf
            before[stop] = int(total.argmax())
            best[stop] = total[before[stop]]
        borders: list[int] = []
        place = len(edges) - 1
        if not np.isfinite(best[place]):  # shorter than one chapter
            return []
        while before[place]:
            place = int(before[place])
            borders.append(place)
        return borders[::-1]
