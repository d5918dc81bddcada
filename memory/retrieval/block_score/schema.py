"""The roles of a search by keys: what is kept of a frame's keys and how that scores, and which
queries of a question are compared.

Shapes: n tokens of a question, L layers, H KV heads, Hq query heads, Dh head width, T frames, G
queries that are compared with one KV head, W numbers of a row.
"""

from typing import Protocol

import numpy as np
from torch import Tensor

from memory.schema import SegmentIndex


class BlockScore(Protocol):
    """What a search keeps of the keys of each frame (a block), and how it scores against queries.

    A row depends on its own frame alone, so nothing that comes later changes a score (law 3). Keys
    and queries are those before rotary embedding.
    """

    # the tensors of a SegmentIndex that `rows` needs: "key_means" or "keys"
    reads: frozenset[str]
    # names all that the rows depend on, for the rows that are saved beside a bank
    rows_name: str
    dtype: type[np.generic]  # of a row
    # True: the score of a sum of queries is the sum of their scores
    is_linear: bool
    # share of the frames that a coarse score leaves for the fine one, above 0; 1: no coarse score
    keep: float

    def rows(self, segment: SegmentIndex) -> np.ndarray | None:
        """[T, L, W] float32, or `dtype`; None if the segment has no keys."""
        ...

    def numbers(self, head_width: int) -> int:
        """Numbers of a row for each KV head: W = H * numbers(Dh)."""
        ...

    def scores(self, rows: np.ndarray, queries: np.ndarray, *, coarse: bool = False) -> np.ndarray:
        """[t, L, H, G] float32: rows [t, L, W] of `dtype` against queries [L, H, G, Dh], which hold
        the attention's scaling. A row's scores do not depend on the rows around it.
        """
        ...


class QueryPool(Protocol):
    """Which queries of a question are compared with the keys."""

    def __call__(self, queries: Tensor) -> Tensor:
        """[n, L, Hq, Dh] of every token -> [m, L, Hq, Dh]; m votes count alike."""
        ...
