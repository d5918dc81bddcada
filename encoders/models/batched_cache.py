"""Contexts of several questions in one cache, so that one decoder call advances all of them.

Each row is first filled like a cache of its own; then all rows advance together. Rows have unequal
lengths: a step appends after the longest row, and a mask excludes places that hold no token of a
row. A token's position comes from its row's cursor, not from its place. Knows no question, no disk,
no model.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from encoders.models.kv_cache import FixedCache
from encoders.models.positions import Cursor

BatchMark = tuple[int, tuple[Cursor, ...]]  # number of tokens, and the cursor of each row


class BatchedCache:
    """Keys and values of B rows in two tensors. First fill each of `rows`, then call `join`, then
    advance.
    """

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        """keys, values [L, B, H, capacity, Dh]: the buffers. Steps attend to the whole buffers,
        because a product over many contexts needs contiguous operands; a slice would be copied in
        every layer.
        """
        self.joint = FixedCache(keys, values, whole=True)
        self.rows = [
            FixedCache(keys[:, b : b + 1], values[:, b : b + 1]) for b in range(keys.shape[1])
        ]
        # [B, capacity]: True at places that hold a token
        self.valid = torch.zeros(keys.shape[1], keys.shape[3], dtype=torch.bool, device=keys.device)

    @classmethod
    def empty(
        cls,
        rows: int,
        layers: int,
        heads: int,
        capacity: int,
        width: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> "BatchedCache":
        """A cache with buffers of its own, filled with zeros: masked values are still multiplied,
        by zero, so they must not be NaN.
        """
        return cls(
            *(
                torch.zeros((layers, rows, heads, capacity, width), dtype=dtype, device=device)
                for _ in range(2)
            )
        )

    @property
    def capacity(self) -> int:
        return self.joint.capacity

    @property
    def places(self) -> Tensor:
        """[B, capacity] int64: the number of each place's token in its row; arbitrary where there
        is none."""
        return self.valid.cumsum(1) - 1

    def with_capacity(self, capacity: int) -> "BatchedCache":
        """A smaller cache in the same memory, with contiguous rows. Do not use this one at the same
        time. The new buffers contain arbitrary earlier numbers.
        """
        layers, rows, heads, _, width = self.joint.keys.shape
        shape = (layers, rows, heads, capacity, width)
        return BatchedCache(
            *(
                part.flatten()[: math.prod(shape)].view(shape)
                for part in (self.joint.keys, self.joint.values)
            )
        )

    def broadcast(self, cache: FixedCache) -> None:
        """Copy the contents of this cache of one row into every row, replacing what they held."""
        length, _ = mark = cache.mark()
        self.joint.keys[..., :length, :] = cache.keys[..., :length, :]
        self.joint.values[..., :length, :] = cache.values[..., :length, :]
        for row in self.rows:
            row.rewind(mark)

    def join(self) -> None:
        """End the filling of single rows: from here on, the rows advance together."""
        lengths = [row.mark()[0] for row in self.rows]
        self.joint.rewind_to(max(lengths))
        self.valid.copy_(torch.arange(self.capacity) < torch.tensor(lengths)[:, None])

    def mark(self) -> BatchMark:
        """This state, for `rewind`."""
        return self.joint.mark()[0], tuple(row.cursor for row in self.rows)

    def rewind(self, mark: BatchMark) -> None:
        """Remove what was appended to all rows since the mark was taken."""
        length, cursors = mark
        self.joint.rewind_to(length)
        self.valid[:, length:] = False
        for row, cursor in zip(self.rows, cursors, strict=True):
            row.cursor = cursor

    def append_mask(self, lengths: Sequence[int], width: int) -> Tensor:
        """Mark the next `width` places of each row as holding this many tokens, left-aligned.

        Returns [B, 1, width, capacity] bool: the keys that each query attends to, its own among
        them.
        """
        start = self.joint.mark()[0]
        new = torch.arange(width)
        self.valid[:, start : start + width] = new < torch.tensor(lengths)[:, None]
        if width == 1:  # no later token exists
            return self.valid[:, None, None]
        causal = torch.ones(width, self.capacity, dtype=torch.bool, device=self.valid.device).tril_(
            start
        )
        return (self.valid[:, None] & causal)[:, None]
