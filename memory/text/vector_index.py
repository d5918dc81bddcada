"""Vectors of text lines in RAM, found by inner product; the row's name is the line's id. Knows no text and no files.

One byte a number (FAISS's scalar quantiser, signed): a million lines of 384 numbers take 0.4 GB and a search reads all of
them, four times less than the exact index over frames (memory/retrieval/frame_index.py) has to read.
"""

import threading
from collections.abc import Sequence

import faiss
import numpy as np

_DEVIATIONS = 6.0  # of a unit row's numbers, which one byte spans; beyond it they are cut


class VectorIndex:
    """Unit rows by id. One thread changes while many search."""

    def __init__(self, width: int) -> None:
        self.width = width
        kind = faiss.ScalarQuantizer.QT_8bit_direct_signed
        self._index = faiss.IndexIDMap(
            faiss.IndexScalarQuantizer(width, kind, faiss.METRIC_INNER_PRODUCT)
        )
        self._scale = 127 * width**0.5 / _DEVIATIONS
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return int(self._index.ntotal)

    @property
    def nbytes(self) -> int:
        return len(self) * (self.width + 8)

    def add(self, ids: np.ndarray, rows: np.ndarray) -> None:
        """ids: [n] int64, none of them there; rows: [n, E]."""
        with self._lock:
            self._index.add_with_ids(self._whole(rows), np.ascontiguousarray(ids, np.int64))

    def remove(self, ids: range) -> None:
        """Forget the rows of these ids."""
        with self._lock:
            self._index.remove_ids(faiss.IDSelectorRange(ids.start, ids.stop))

    def search(
        self, query: np.ndarray, k: int, among: Sequence[range] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The k ids with the largest inner products, [<= k] int64, and these, [<= k] float32; equal ones by id. query: [E].
        among: only ids of these ranges; None: all."""
        found = [self._top(query, k, ids) for ids in (among if among is not None else [None])]
        ids = np.concatenate([each for each, _ in found]) if found else np.empty(0, np.int64)
        scores = np.concatenate([each for _, each in found]) if found else np.empty(0, np.float32)
        order = np.lexsort((ids, -scores))[:k]
        return ids[order], scores[order]

    def _top(self, query: np.ndarray, k: int, ids: range | None) -> tuple[np.ndarray, np.ndarray]:
        only = None
        if ids is not None:
            only = faiss.SearchParameters(sel=faiss.IDSelectorRange(ids.start, ids.stop))  # type: ignore[call-arg]
        with self._lock:
            k = min(k, len(self))
            if k == 0:
                return np.empty(0, np.int64), np.empty(0, np.float32)
            scores, found = self._index.search(self._whole(query[None]), k, params=only)
        there = found[0] >= 0  # fewer than k are in the range
        return found[0][there], scores[0][there] / self._scale**2

    def _whole(self, rows: np.ndarray) -> np.ndarray:
        """Whole numbers, of questions as well: FAISS multiplies bytes with bytes."""
        return np.clip(np.round(rows.astype(np.float32) * self._scale), -127, 127)
