"""The role of an index over keys: which frames are worth a comparison.

Shapes: L layers, H KV heads, G queries of a KV head, c keys of a frame, Dh head width, T frames.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from memory.schema import Stretch


class KeyIndex(Protocol):
    """A part of conf/key_index/. One thread adds while many search.

    Where a key is found depends on keys of earlier frames and on itself alone, so nothing that
    comes later changes a search of what was before (law 3).
    """

    @property
    def is_exact(self) -> bool:
        """Whether all frames are compared, so that nothing has to be added."""
        ...

    @property
    def nbytes(self) -> int:
        """RAM of all videos."""
        ...

    def frame_count(self, video_id: str) -> int:
        """How many frames of a video were added."""
        ...

    def add(self, video_id: str, keys: np.ndarray) -> None:
        """The next frames of a video: keys [T, L, H, c, Dh], of any type of float."""
        ...

    def candidates(self, queries: np.ndarray, stretches: Sequence[Stretch]) -> np.ndarray:
        """Rising places of the frames with a key near one of the queries [L, H, G, Dh]: the number
        of each frame in the stretches, taken one after another."""
        ...

    def forget(self, video_id: str) -> None:
        """Free the memory of this video."""
        ...


class NoIndex:
    """Every frame is compared."""

    is_exact = True
    nbytes = 0

    def frame_count(self, video_id: str) -> int:
        return 0

    def add(self, video_id: str, keys: np.ndarray) -> None:
        """Nothing to keep."""

    def candidates(self, queries: np.ndarray, stretches: Sequence[Stretch]) -> np.ndarray:
        return np.arange(sum(map(len, stretches)))

    def forget(self, video_id: str) -> None:
        """Nothing to free."""
