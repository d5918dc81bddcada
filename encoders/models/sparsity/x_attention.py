"""XAttention: blocks of attention by the sums of their antidiagonals (arXiv 2503.16428).

The matrix is cut into blocks of B x B, and those into cells of s x s. The score of a cell is the
mean of its antidiagonal, which crosses every row and every column of it once:

    a(I, J) = scaling / s * sum over i < s of <q[s I + s - 1 - i], k[s J + i]>

A softmax over the cells of a row, summed up by blocks, gives each block of queries the shares of
its blocks of keys. The largest ones are kept that reach `threshold`, and always the first block
(the attention sink) and the block of the queries themselves.
Cost: 1 / s of the products of queries with keys for the scores; then the kept blocks' pairs of all
the pairs of attention. A mask leaves them out, so they are counted and not yet saved.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from encoders.errors import UserError
from encoders.models.sparsity.sparsity import least_to_reach, or_all, refuse_no_share


@dataclass(frozen=True)
class XAttention:
    """threshold: share of the estimated attention that the kept blocks reach; 1: all blocks. block:
    tokens of a block's side. stride: tokens of a cell's side; it divides `block`.
    """

    threshold: float = 0.9
    block: int = 128
    stride: int = 16

    def __post_init__(self) -> None:
        refuse_no_share("threshold", self.threshold)
        if self.block < 1 or self.stride < 1 or self.block % self.stride:
            raise UserError(
                f"sparsity.stride={self.stride} must divide sparsity.block={self.block}, both 1 or "
                "more."
            )

    @property
    def is_dense(self) -> bool:
        return self.threshold >= 1

    def choose(self, query: Tensor, key: Tensor, scaling: float) -> Tensor | None:
        count, length = query.shape[1], key.shape[1]
        shares, first = self._shares(query.float(), key.float(), scaling)  # [Hq, rows, columns]
        kept = least_to_reach(shares, self.threshold)
        kept[..., 0] = True
        rows = torch.arange(kept.shape[1], device=kept.device)
        kept[:, rows, rows + first] = True
        at = torch.arange(length, device=kept.device) // self.block
        return or_all(kept[:, at[length - count :] - first][:, :, at])

    def _shares(self, query: Tensor, key: Tensor, scaling: float) -> tuple[Tensor, int]:
        """The shares of the blocks of keys for each block of queries, and the number of the first
        block of queries. Blocks and cells begin at multiples of their sides from the context's
        first token on.
        """
        heads, count, _ = query.shape
        length, side, stride = key.shape[1], self.block, self.stride
        offset = length - count
        first, lead, tail = offset // side, offset % side, -length % side
        cells = side // stride
        # [.., cells, stride * Dh]: the products of these sum up an antidiagonal
        queries = pad(query, (0, 0, lead, tail)).unflatten(1, (-1, stride)).flip(2).flatten(2)
        keys = pad(key, (0, 0, 0, tail)).unflatten(1, (-1, stride)).flatten(2)
        keys = keys.repeat_interleave(heads // len(key), 0)
        scores = queries @ keys.transpose(1, 2) * (scaling / stride)  # [Hq, rows, columns] of cells
        own = torch.arange(queries.shape[1], device=scores.device) + first * cells
        others = torch.arange(keys.shape[1], device=scores.device)
        later = (others > own[:, None]) | (others * stride >= length)
        shares = torch.softmax(scores.masked_fill_(later, -torch.inf), -1)
        # cells before the first query and behind the last one are of no query
        absent = (own + 1) * stride <= offset
        shares = shares.masked_fill(absent[:, None] | (own * stride >= length)[:, None], 0.0)
        blocks = shares.unflatten(1, (-1, cells)).unflatten(3, (-1, cells)).sum((2, 4))
        return blocks / blocks.sum(-1, keepdim=True), first
