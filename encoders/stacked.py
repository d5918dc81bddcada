"""Contexts of several questions side by side, so that one call of the decoder takes a step in all of them.

Each row is laid like a cache of its own; then all go on together. Rows are of unequal length: a step appends behind the
longest one, and a mask keeps what belongs to no token of a row out of that row's attention. A token's position comes from its
row's cursor, not from where it lies. Knows no question, no disk, no model.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from encoders.kv import FixedCache, Mark
from encoders.positions import Cursor

StackMark = tuple[int, tuple[Cursor, ...]]  # tokens held and where each row stands


class StackedCache:
    """Keys and values of B rows in two tensors. First each of `rows` is laid, then `join`, then steps."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        """keys, values [L, B, H, capacity, Dh]: the buffers."""
        self.whole = FixedCache(keys, values)
        self.rows = [FixedCache(keys[:, b : b + 1], values[:, b : b + 1]) for b in range(keys.shape[1])]
        self.seen = torch.zeros(keys.shape[1], keys.shape[3], dtype=torch.bool, device=keys.device)  # [B, capacity]: tokens

    @classmethod
    def empty(
        cls, rows: int, layers: int, heads: int, capacity: int, width: int, dtype: torch.dtype, device: torch.device
    ) -> "StackedCache":
        """With buffers of its own. No number in them is NaN: what a mask hides is still multiplied, by zero."""
        return cls(*(torch.zeros((layers, rows, heads, capacity, width), dtype=dtype, device=device) for _ in range(2)))

    @property
    def capacity(self) -> int:
        return self.whole.capacity

    def empty_rows(self, mark: Mark) -> None:
        """Take every row back to this state, which each was in before."""
        for row in self.rows:
            row.rewind(mark)

    def join(self) -> None:
        """The rows are laid: from here on they grow together."""
        filled = [row.mark()[0] for row in self.rows]
        self.whole.rewind_to(max(filled))
        self.seen.copy_(torch.arange(self.capacity) < torch.tensor(filled)[:, None])

    def mark(self) -> StackMark:
        """This state, for `rewind`."""
        return self.whole.mark()[0], tuple(row.cursor for row in self.rows)

    def rewind(self, mark: StackMark) -> None:
        """Forget what was appended to all rows since the mark was taken."""
        filled, cursors = mark
        self.whole.rewind_to(filled)
        for row, cursor in zip(self.rows, cursors, strict=True):
            row.cursor = cursor

    def widen(self, lengths: Sequence[int], width: int) -> Tensor:
        """Say that the next `width` places hold so many tokens of each row, left first.

        -> [B, 1, width, S + width] bool, S tokens held: which keys each query sees, its own among them."""
        start = self.whole.mark()[0]
        new = torch.arange(width)
        self.seen[:, start : start + width] = new < torch.tensor(lengths)[:, None]
        causal = torch.ones(width, start + width, dtype=torch.bool, device=self.seen.device).tril_(start)
        return (self.seen[:, None, : start + width] & causal)[:, None]
