"""The frames of one video by inner product with a query; the row number is the frame's ordinal. Of
several queries at once, such as the frames of a clip, the nearest one gives a row its score.

Knows no texts, segments or videos. Up to SWITCH visible rows, every row is scored. Beyond that,
rows come in blocks. A block that is visible as a whole is searched through an inverted file of its
own (memory/retrieval/ivf_block.py). Rows before the first and after the last such block are all
scored. The best of both are scored again from the exact rows.

The result depends only on the visible rows, on where they begin, and on k. It does not depend on
how the rows were added, or on later rows, not even through a centroid (laws 3 and 8). The `add`
that fills a block trains its inverted file: some tenths of a second, once in 65,536 frames.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from memory.retrieval import topk
from memory.retrieval.ivf_block import IvfBlock, key_of
from memory.retrieval.row_buffer import RamBudget, RowBuffer

SWITCH = 1 << 17  # rows: 36 hours at a frame a second
_BLOCK = 1 << 16  # rows; at either end up to this many are scored one by one
_MIN_ROWS_PER_HIT = 256  # a search for more than one in so many rows is exact

# the key of a block's rows -> the saved block, if there is one
LoadBlock = Callable[[str], IvfBlock | None]


class FrameIndex:
    """Rows of unit length. One thread adds while many search."""

    def __init__(
        self,
        width: int,
        budget: RamBudget | None = None,
        *,
        block: int = _BLOCK,
        switch: int = SWITCH,
        load_block: LoadBlock | None = None,
    ) -> None:
        """budget: RAM for rows, beyond which they are mapped from a file; None: no limit.
        block: rows of a block. switch: more rows than this are searched approximately. Both differ
        only in tests.
        load_block: finds a saved block; None: every block is trained."""
        self.width = width
        self.switch = switch
        self._rows = RowBuffer((width,), budget or RamBudget(1 << 62), np.float32)
        self._block_rows, self._load_block = block, load_block
        self._ivf_blocks: list[IvfBlock] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def is_approximate(self) -> bool:
        """Whether a search over all rows is approximate."""
        return self._count > self.switch

    @property
    def ivf_blocks(self) -> tuple[IvfBlock, ...]:
        """The inverted files, from the first row on."""
        return tuple(self._ivf_blocks)

    @property
    def nbytes(self) -> int:
        """Bytes in RAM."""
        return min(self._rows.nbytes, 4 * self._count * self.width) + sum(
            block.nbytes for block in self.ivf_blocks
        )

    def add(self, rows: Tensor) -> None:
        """Append rows: [T, E] float32."""
        self._rows.append(_to_numpy(rows))
        while len(self._rows) > self.switch and (
            len(self._ivf_blocks) + 1
        ) * self._block_rows <= len(self._rows):
            self._add_block()
        self._count = len(self._rows)  # last: a search that sees the rows also finds their blocks

    def search(
        self, query: Tensor, k: int, visible: int, first: int = 0
    ) -> tuple[np.ndarray, np.ndarray]:
        """The k rows (or all) from `first` on and below `visible` with the largest inner product.

        query: [E], or [Q, E]: a row's score is the largest of its products. Returns ordinals int64
        and scores float32, best first. Of equal scores, the lower ordinal comes first and survives
        the cut. Above the switch, some rows may be missed and replaced by rows with smaller
        products.
        """
        count = visible - first
        k = min(k, count)
        if k <= 0:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        queries = np.atleast_2d(_to_numpy(query))
        blocks = range(-(-first // self._block_rows), visible // self._block_rows)
        if count > self.switch and blocks and k <= count // _MIN_ROWS_PER_HIT:
            ordinals, scores = self._approximate(queries, k, blocks, first, visible)
            if len(ordinals) == k:
                return ordinals, scores
        scores = self._scores(queries, first, visible)
        best = topk.best(scores, k)
        return first + best, scores[best]

    def part(self, first: int, stop: int) -> np.ndarray:
        """Rows first..stop-1: [stop - first, E] float32."""
        return self._rows.part(first, stop)

    def release(self) -> None:
        """Return the RAM budget. The index must not be used afterwards."""
        self._rows.release()

    def _scores(self, queries: np.ndarray, first: int, stop: int) -> np.ndarray:
        """[stop - first] float32: largest products of the rows with [Q, E]."""
        scores, at = np.empty(stop - first, np.float32), 0
        for rows in self._rows.blocks(stop, first):
            scores[at : at + len(rows)] = largest_products(rows, queries)
            at += len(rows)
        return scores

    def _approximate(
        self, queries: np.ndarray, k: int, blocks: range, first: int, visible: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """The best k, or fewer, of the candidates of blocks and of all rows before and after
        them."""
        ordinals, scores = self._candidates(queries, k, blocks)
        for a, b in (
            (first, blocks.start * self._block_rows),
            (blocks.stop * self._block_rows, visible),
        ):
            exact = self._scores(queries, a, b)
            best = topk.best(exact, k)
            ordinals, scores = (
                np.concatenate([ordinals, a + best]),
                np.concatenate([scores, exact[best]]),
            )
        order = np.lexsort((ordinals, -scores))[:k]
        return ordinals[order], scores[order]

    def _candidates(
        self, queries: np.ndarray, k: int, blocks: range
    ) -> tuple[np.ndarray, np.ndarray]:
        """Candidates of blocks, with exact scores. The best k of all queries are among the best k
        of each."""
        k += self._ivf_blocks[blocks.start].rerank_margin
        best = np.sort(self._nearest(queries[0], k, blocks))
        for query in queries[1:]:
            best = np.union1d(best, self._nearest(query, k, blocks))
        return best, largest_products(self._rows.take(best), queries)

    def _nearest(self, query: np.ndarray, k: int, blocks: range) -> np.ndarray:
        """Ordinals of about the k rows of blocks with the largest products with [E]."""
        hits = [self._ivf_blocks[block].search(query, k) for block in blocks]
        ordinals = np.concatenate(
            [block * self._block_rows + rows for block, (rows, _) in zip(blocks, hits, strict=True)]
        )
        estimates = np.concatenate([scores for _, scores in hits])
        return ordinals[topk.best(estimates, k)]

    def _add_block(self) -> None:
        first = len(self._ivf_blocks) * self._block_rows
        rows = self._rows.part(first, first + self._block_rows)
        saved = None if self._load_block is None else self._load_block(key_of(rows))
        self._ivf_blocks.append(IvfBlock.train(rows) if saved is None else saved)


def largest_products(rows: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """[T] float32 of rows [T, E] and queries [Q, E]: of each row with its nearest query. Unlike in
    a matrix product, the result for a row does not depend on the rows around it: candidates score
    as in an exact search, and equal rows score equally."""
    largest: np.ndarray = np.einsum("te,e->t", rows, queries[0])
    for query in queries[1:]:
        np.maximum(largest, np.einsum("te,e->t", rows, query), out=largest)
    return largest


def _to_numpy(rows: Tensor) -> np.ndarray:
    """float32, contiguous, on the CPU."""
    array: np.ndarray = rows.detach().to("cpu", torch.float32).contiguous().numpy()
    return array
