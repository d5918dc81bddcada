"""Vectors of text lines in RAM, searched by inner product; a row is named by its line's id.

Knows no text and no files. One byte a number (FAISS's scalar quantizer, signed): a million lines of
384 numbers take 0.4 GB. A search reads all of them, a quarter of the bytes that the exact index of
frames reads (memory/retrieval/frame_index.py).
"""

import threading
from collections.abc import Sequence

import faiss
import numpy as np

_DEVIATIONS = 6.0  # standard deviations of a unit row's numbers that a byte spans; more is clipped


class VectorIndex:
    """Unit rows by id. One thread may change it while many search."""

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
        """ids: [n] int64, all new; rows: [n, E]."""
        with self._lock:
            self._index.add_with_ids(self._to_bytes(rows), np.ascontiguousarray(ids, np.int64))

    def remove(self, ids: range) -> None:
        """Remove the rows of these ids."""
        with self._lock:
            self._index.remove_ids(faiss.IDSelectorRange(ids.start, ids.stop))

    def search(
        self, query: np.ndarray, k: int, among: Sequence[range] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The k ids with the largest inner products, [<= k] int64, and those products, [<= k]
        float32; ties by id. query: [E]. among: only ids in these ranges; None: all."""
        parts = [self._top(query, k, ids) for ids in (among if among is not None else [None])]
        ids = np.concatenate([part for part, _ in parts]) if parts else np.empty(0, np.int64)
        scores = np.concatenate([part for _, part in parts]) if parts else np.empty(0, np.float32)
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
            scores, rows = self._index.search(self._to_bytes(query[None]), k, params=only)
        valid = rows[0] >= 0  # -1 where the range has fewer than k
        return rows[0][valid], scores[0][valid] / self._scale**2

    def _to_bytes(self, rows: np.ndarray) -> np.ndarray:
        """[n, E] float32 whole numbers, for queries too: FAISS multiplies bytes by bytes."""
        return np.clip(np.round(rows.astype(np.float32) * self._scale), -127, 127)
