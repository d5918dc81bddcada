"""An array that grows at the end while others go on reading what they have of it: adding does not copy what is there.

Knows nothing of what the numbers mean.
"""

import numpy as np


class Growing:
    """Room for numbers, [n]. One thread at a time adds."""

    def __init__(self, values: np.ndarray) -> None:
        self._held = values
        self._used = len(values)

    def follows(self, count: int) -> bool:
        """Whether what comes next comes after the first `count` numbers: nobody else has added behind them."""
        return self._used == count

    def with_more(self, more: np.ndarray) -> np.ndarray:
        """All numbers with these behind them. What was returned before shows what it showed."""
        count = self._used + len(more)
        if count > len(self._held):
            held = np.empty(max(2 * count, 64), self._held.dtype)
            held[: self._used] = self._held[: self._used]
            self._held = held
        self._held[self._used : count] = more
        self._used = count
        return self._held[:count]
