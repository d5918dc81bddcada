"""The k largest scores, best first. Every search ends with it.

Knows nothing about what the scores mean.
"""

import numpy as np


def best(scores: np.ndarray, k: int) -> np.ndarray:
    """[min(k, n)] int64 indices of the k largest of [n] scores.
    Among equal scores the lower index comes first and survives the cut. NaN comes last."""
    falling = -scores
    # sorting the scores of a whole day for a few of them took longer than most searches
    if 0 < k < len(scores) // 2:
        last = np.partition(falling, k - 1)[k - 1]
        if not np.isnan(last):
            above = np.flatnonzero(falling <= last)
            top: np.ndarray = above[np.argsort(falling[above], kind="stable")[:k]]
            return top
    return np.argsort(falling, kind="stable")[:k]
