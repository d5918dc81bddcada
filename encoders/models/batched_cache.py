"""Contexts of several questions side by side, so that one call of the decoder takes a step in all of them.

Each row is laid like a cache of its own; then all go on together. Rows are of unequal length: a step appends behind the
longest one, and a mask keeps what belongs to no token of a row out of that row's attention. A token's position comes from its
row's cursor, not from where it lies. Knows no question, no disk, no model.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from encoders.models.kv_cache import FixedCache
from encoders.models.positions import Cursor

BatchMark = tuple[int, tuple[Cursor, ...]]  # tokens held and where each row stands


class BatchedCache:
    """Keys and values of B rows in two tensors. First each of `rows` is laid, then `join`, then steps."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        """keys, values [L, B, H, capacity, Dh]: the buffers. Steps attend to them as they are, for a product of many contexts
        takes its operands in one piece: cut to what is filled they would be copied in every layer."""
        self.joint = FixedCache(keys, values, whole=True)
        self.rows = [
            FixedCache(keys[:, b : b + 1], values[:, b : b + 1]) for b in range(keys.shape[1])
        ]
        # [B, capacity]: tokens
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
        """With buffers of its own. No number in them is NaN: what a mask hides is still multiplied, by zero."""
        return cls(
            *(
                torch.zeros((layers, rows, heads, capacity, width), dtype=dtype, device=device)
                for _ in range(2)
            )
        )

    @property
    def capacity(self) -> int:
        return self.joint.capacity

    def with_capacity(self, capacity: int) -> "BatchedCache":
        """A smaller one in the same memory, which this one must not use meanwhile: rows lie close together again. The numbers
        in it are those of whoever had the memory before."""
        layers, rows, heads, _, width = self.joint.keys.shape
        shape = (layers, rows, heads, capacity, width)
        return BatchedCache(
            *(
                part.flatten()[: math.prod(shape)].view(shape)
                for part in (self.joint.keys, self.joint.values)
            )
        )

    def broadcast(self, cache: FixedCache) -> None:
        """Every row holds what this cache of one row holds, and nothing else."""
        length, _ = mark = cache.mark()
        self.joint.keys[..., :length, :] = cache.keys[..., :length, :]
        self.joint.values[..., :length, :] = cache.values[..., :length, :]
        for row in self.rows:
            row.rewind(mark)

    def join(self) -> None:
        """The rows are laid: from here on they grow together."""
        lengths = [row.mark()[0] for row in self.rows]
        self.joint.rewind_to(max(lengths))
        self.valid.copy_(torch.arange(self.capacity) < torch.tensor(lengths)[:, None])

    def mark(self) -> BatchMark:
        """This state, for `rewind`."""
        return self.joint.mark()[0], tuple(row.cursor for row in self.rows)

    def rewind(self, mark: BatchMark) -> None:
        """Forget what was appended to all rows since the mark was taken."""
        length, cursors = mark
        self.joint.rewind_to(length)
        self.valid[:, length:] = False
        for row, cursor in zip(self.rows, cursors, strict=True):
            row.cursor = cursor

    def append_mask(self, lengths: Sequence[int], width: int) -> Tensor:
        """Say that the next `width` places hold so many tokens of each row, left first.

        -> [B, 1, width, capacity] bool: which keys each query sees, its own among them."""
        start = self.joint.mark()[0]
        new = torch.arange(width)
        self.valid[:, start : start + width] = new < torch.tensor(lengths)[:, None]
        if width == 1:  # nothing lies behind it
            return self.valid[:, None, None]
        causal = torch.ones(width, self.capacity, dtype=torch.bool, device=self.valid.device).tril_(
            start
        )
        return (self.valid[:, None] & causal)[:, None]
