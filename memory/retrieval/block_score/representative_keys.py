"""A few representative keys of each frame (InfLLM, arXiv 2402.04617).

    score(q, frame) = max over its representative keys r of <q, r>, or their mean

InfLLM takes the tokens that later tokens attend to most, and adds up their scores. A bank stores no
queries, so here the keys represent a frame that lie farthest from its mean and from each other:
what a mean key hides. With pool="mean" and as many keys as the frame has, this is the mean key;
with pool="max", the best token of the frame, exactly.
Cost: `count` times the bytes and the products of mean keys, for each query head apart with "max".
"""

import numpy as np
import torch
from torch import Tensor

from encoders.errors import UserError
from memory.retrieval.block_score.clustering import farthest_first
from memory.retrieval.block_score.mean_key import as_float32
from memory.schema import SegmentIndex


class RepresentativeKeys:
    """count: keys of each frame, layer and KV head; a frame with fewer has its mean key in their
    place. pool: "max" or "mean".
    """

    reads = frozenset({"keys"})
    dtype: type[np.generic] = np.float16
    keep = 1.0

    def __init__(self, *, count: int = 4, pool: str = "max") -> None:
        if count < 1:
            raise UserError(f"block_score.count={count} gives no key; use 1 or more.")
        if pool not in ("max", "mean"):
            raise UserError(f"block_score.pool={pool} is not known; use max or mean.")
        self._count, self._is_max = count, pool == "max"
        self.is_linear = not self._is_max
        self.rows_name = f"representative-{count}"

    def rows(self, segment: SegmentIndex) -> np.ndarray | None:
        """[T, L, H * count * Dh] float32."""
        if segment.keys is None:
            return None
        return segment.keys.per_frame(self._row).flatten(2).numpy()

    def numbers(self, head_width: int) -> int:
        return self._count * head_width

    def scores(self, rows: np.ndarray, queries: np.ndarray, *, coarse: bool = False) -> np.ndarray:
        layers, heads, _, width = queries.shape
        keys = as_float32(rows).reshape(len(rows), layers, heads, self._count, width)
        scores: np.ndarray = np.einsum("tlhrd,lhgd->tlhrg", keys, queries)
        return scores.max(3) if self._is_max else scores.mean(3)

    def _row(self, keys: Tensor) -> Tensor:
        """Keys of a frame [L, H, m, Dh] -> [L, H, count, Dh]."""
        points = keys.flatten(0, 1)  # [L * H, m, Dh]
        chosen = farthest_first(points, self._count)
        own = points.gather(1, chosen[..., None].expand(-1, -1, points.shape[2]))
        # the mean of some numbers with their own mean stays the same, and so does their maximum
        rest = points.mean(1, keepdim=True).expand(-1, self._count - own.shape[1], -1)
        return torch.cat([own, rest], 1).unflatten(0, keys.shape[:2])
