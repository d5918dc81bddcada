"""A FAISS inner-product index over the frames of one video; the row number is the frame's ordinal.

Knows nothing of texts, segments, videos or files.
"""

import threading

import faiss
import numpy as np
import torch
from torch import Tensor


class FrameIndex:
    """Rows of unit length, searched exactly. One thread adds while many search."""

    def __init__(self, width: int) -> None:
        self._index: faiss.Index = faiss.IndexFlatIP(width)
        self._lock = threading.Lock()  # FAISS moves its rows when it grows; a search must not read them meanwhile

    def __len__(self) -> int:
        return int(self._index.ntotal)

    @property
    def width(self) -> int:
        return int(self._index.d)

    @property
    def nbytes(self) -> int:
        return 4 * len(self) * self.width

    def add(self, rows: Tensor) -> None:
        """Append rows: [T, E] float32."""
        with self._lock:
            self._index.add(_plain(rows))

    def search(self, query: Tensor, k: int, visible: int, first: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """The k rows (or all) from `first` on and below `visible` with the largest inner product: ordinals int64, scores
        float32. Equal scores come in rising order, and the cut at k keeps the lower ordinals."""
        there = visible - first
        k = min(k, there)
        if k <= 0:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        ask = k + 1  # one more than wanted shows whether the cut falls between equal scores
        while True:
            ask = min(ask, there)
            ordinals, scores = self._top(query, ask, first, visible)
            # FAISS is free to choose among equal scores: take them all in, then cut in our order
            if ask == there or scores[k - 1] > scores[-1]:
                order = np.lexsort((ordinals, -scores))[:k]
                return ordinals[order], scores[order]
            ask *= 2

    def _top(self, query: Tensor, k: int, first: int, visible: int) -> tuple[np.ndarray, np.ndarray]:
        # law 3: the future is not searched
        only = faiss.SearchParameters(sel=faiss.IDSelectorRange(first, visible))  # type: ignore[call-arg]
        with self._lock:
            scores, ordinals = self._index.search(_plain(query[None]), k, params=only)
        return ordinals[0], scores[0]

    def part(self, first: int, stop: int) -> np.ndarray:
        """Rows first..stop-1: [stop - first, E] float32."""
        with self._lock:
            rows: np.ndarray = self._index.reconstruct_n(first, stop - first)
        return rows


def _plain(rows: Tensor) -> np.ndarray:
    """What FAISS takes: float32, contiguous, on the CPU."""
    return rows.detach().to("cpu", torch.float32).contiguous().numpy()
