"""The frames of one video by inner product with a query; the row number is the frame's ordinal.

Knows nothing of texts, segments or videos. Up to SWITCH rows in sight every one is looked at. Beyond, rows come in blocks:
those that are in sight as a whole are looked into through an inverted file of their own (memory/retrieval/ivf_block.py), the rows at either
end are all looked at, and the best of both are scored again from the rows themselves.

What is found depends on the rows in sight, on where they begin and on how many are wanted, and on nothing else: not on how the
rows came, and not on those that come later, be it through a centroid (laws 3 and 8). A block is sealed by the `add` that fills
it: that takes some tenths of a second, once in 65,536 frames.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from memory.retrieval import topk
from memory.retrieval.ivf_block import Sealed, key_of
from memory.retrieval.row_buffer import RamBudget, Rows

SWITCH = 1 << 17  # rows: 36 hours at a frame a second
_BLOCK = 1 << 16  # rows; at either end as many may have to be looked at one by one
_DEEPEST = 256  # a question that wants more than one in so many rows gets them exactly

# the key of a block's rows -> the block, where somebody kept it
Kept = Callable[[str], Sealed | None]


class FrameIndex:
    """Rows of unit length. One thread adds while many search."""

    def __init__(
        self,
        width: int,
        budget: RamBudget | None = None,
        *,
        block: int = _BLOCK,
        switch: int = SWITCH,
        kept: Kept | None = None,
    ) -> None:
        """budget: of RAM for rows, beyond it they are mapped; None = as much as they need. A few rows beyond the switch are
        too few for anything but tests."""
        self.width = width
        self.switch = switch
        self._rows = Rows((width,), budget or RamBudget(1 << 62), np.float32)
        self._block, self._kept = block, kept
        self._sealed: list[Sealed] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def approximate(self) -> bool:
        """Whether questions that see all rows are no longer answered exactly."""
        return self._count > self.switch

    @property
    def sealed(self) -> tuple[Sealed, ...]:
        """The blocks that are no longer looked at row by row, from the first row on."""
        return tuple(self._sealed)

    @property
    def nbytes(self) -> int:
        """In RAM."""
        return min(self._rows.nbytes, 4 * self._count * self.width) + sum(
            block.nbytes for block in self.sealed
        )

    def add(self, rows: Tensor) -> None:
        """Append rows: [T, E] float32."""
        self._rows.append(_plain(rows))
        while len(self._rows) > self.switch and (len(self._sealed) + 1) * self._block <= len(
            self._rows
        ):
            self._seal()
        self._count = len(self._rows)  # last: whoever sees the rows finds their blocks sealed

    def search(
        self, query: Tensor, k: int, visible: int, first: int = 0
    ) -> tuple[np.ndarray, np.ndarray]:
        """The k rows (or all) from `first` on and below `visible` with the largest inner product: ordinals int64, scores
        float32. Equal scores come in rising order, and the cut at k keeps the lower ordinals. Above the switch some of them may
        be missed, and rows with smaller products stand in for them."""
        there = visible - first
        k = min(k, there)
        if k <= 0:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        wanted = _plain(query)
        blocks = range(-(-first // self._block), visible // self._block)
        if there > self.switch and blocks and k <= there // _DEEPEST:
            ordinals, scores = self._mostly(wanted, k, blocks, first, visible)
            if len(ordinals) == k:
                return ordinals, scores
        scores = self._scores(wanted, first, visible)
        best = topk.best(scores, k)
        return first + best, scores[best]

    def part(self, first: int, stop: int) -> np.ndarray:
        """Rows first..stop-1: [stop - first, E] float32."""
        return self._rows.part(first, stop)

    def release(self) -> None:
        """Give the budget back. The index is not used afterwards."""
        self._rows.release()

    def _scores(self, query: np.ndarray, first: int, stop: int) -> np.ndarray:
        """[stop - first] float32 products with [E]."""
        scores, at = np.empty(stop - first, np.float32), 0
        for rows in self._rows.blocks(stop, first):
            scores[at : at + len(rows)] = _products(rows, query)
            at += len(rows)
        return scores

    def _mostly(
        self, query: np.ndarray, k: int, blocks: range, first: int, visible: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """The best k, or fewer, of what sealed blocks name and of all rows before and after them."""
        ordinals, scores = self._inside(query, k, blocks)
        for a, b in ((first, blocks.start * self._block), (blocks.stop * self._block, visible)):
            seen = self._scores(query, a, b)
            best = topk.best(seen, k)
            ordinals, scores = (
                np.concatenate([ordinals, a + best]),
                np.concatenate([scores, seen[best]]),
            )
        order = np.lexsort((ordinals, -scores))[:k]
        return ordinals[order], scores[order]

    def _inside(self, query: np.ndarray, k: int, blocks: range) -> tuple[np.ndarray, np.ndarray]:
        """Candidates of sealed blocks with their exact scores."""
        k += self._sealed[blocks.start].spare
        found = [self._sealed[block].search(query, k) for block in blocks]
        ordinals = np.concatenate(
            [block * self._block + places for block, (places, _) in zip(blocks, found, strict=True)]
        )
        about = np.concatenate([scores for _, scores in found])
        named = np.sort(ordinals[topk.best(about, k)])
        return named, _products(self._rows.take(named), query)

    def _seal(self) -> None:
        first = len(self._sealed) * self._block
        rows = self._rows.part(first, first + self._block)
        kept = None if self._kept is None else self._kept(key_of(rows))
        self._sealed.append(Sealed.train(rows) if kept is None else kept)


def _products(rows: np.ndarray, query: np.ndarray) -> np.ndarray:
    """[T] float32 of [T, E] and [E]. A row's product is the same among whichever rows it stands, as it would not be in a matrix
    product: candidates score as in an exact search, and equal rows are equal."""
    return np.einsum("te,e->t", rows, query)


def _plain(rows: Tensor) -> np.ndarray:
    """float32, contiguous, on the CPU."""
    found: np.ndarray = rows.detach().to("cpu", torch.float32).contiguous().numpy()
    return found
