"""The largest of many scores, best first, equal ones in rising order: what every search ends with.

Knows nothing of what the scores are of.
"""

import numpy as np


def best(scores: np.ndarray, k: int) -> np.ndarray:
    """[min(k, n)] places int64 of the k largest of [n] scores; the lower place comes first among equals, and stays at the cut.
    Those that are no numbers come last."""
    falling = -scores
    # sorting all of a day's scores for a few took longer than most searches
    if 0 < k < len(scores) // 2:
        last = np.partition(falling, k - 1)[k - 1]
        if not np.isnan(last):
            named = np.flatnonzero(falling <= last)
            found: np.ndarray = named[np.argsort(falling[named], kind="stable")[:k]]
            return found
    return np.argsort(falling, kind="stable")[:k]
