"""Centroids of the keys of each frame, in two levels (Squeezed Attention, arXiv 2411.09688).

    score(q, frame)  = log of the sum over its centroids c of n_c exp(<q, c>)
    coarse(q, frame) = log m + <q, mean of its m keys>

n_c is how many keys a centroid stands for. The score is an estimate of the log of the attention
that the frame would get; with as many centroids as keys it is exact, up to positions. Level 1, one
centroid a frame, decides which share of the frames level 2 compares; with keep=1 it compares all.

The paper clusters all keys of a fixed context. Here no cluster crosses a frame, and centroids are
made when a segment is sealed: a question at a moment must not depend on later frames (law 3).
Cost: 1 + count keys and their weights for a frame, in float16; the products of mean keys, and
count times as many for the share `keep`, for each query head apart. Making the rows reads all keys
of a segment once.
"""

import numpy as np
import torch
from torch import Tensor

from encoders.errors import UserError
from memory.retrieval.block_score.clustering import k_means
from memory.retrieval.block_score.mean_key import as_float32
from memory.schema import SegmentIndex

_NONE = -1e4  # log of the weight of a centroid that a frame lacks


class KeyCentroids:
    """count: centroids of level 2 for each frame, layer and KV head. keep: the share of the frames
    that level 1 leaves for level 2. rounds: of Lloyd's algorithm.
    """

    reads = frozenset({"keys"})
    dtype: type[np.generic] = np.float16
    is_linear = False

    def __init__(self, *, count: int = 4, keep: float = 0.25, rounds: int = 5) -> None:
        if count < 1:
            raise UserError(f"block_score.count={count} gives no centroid; use 1 or more.")
        if not 0 < keep <= 1:
            raise UserError(f"block_score.keep={keep} is no share of frames; use 0 < keep <= 1.")
        if rounds < 0:
            raise UserError(f"block_score.rounds={rounds} is negative; use 0 or more.")
        self._count, self._rounds, self.keep = count, rounds, keep
        self.rows_name = f"centroids-{count}-{rounds}"

    def rows(self, segment: SegmentIndex) -> np.ndarray | None:
        """[T, L, H * (1 + count) * (Dh + 1)] float32: centroids, each with the log of its weight
        behind it; the first of each head is that of level 1.
        """
        if segment.keys is None:
            return None
        return segment.keys.per_frame(self._row).flatten(2).numpy()

    def numbers(self, head_width: int) -> int:
        return (1 + self._count) * (head_width + 1)

    def scores(self, rows: np.ndarray, queries: np.ndarray, *, coarse: bool = False) -> np.ndarray:
        layers, heads, group, width = queries.shape
        levels = rows.reshape(len(rows), layers, heads, 1 + self._count, width + 1)
        # a last number of 1 adds the log of the weight
        weighted = np.concatenate([queries, np.ones((layers, heads, group, 1), np.float32)], -1)
        if coarse:
            keys = as_float32(np.ascontiguousarray(levels[..., 0, :]))
            return np.einsum("tlhd,lhgd->tlhg", keys, weighted)
        scores = np.einsum(
            "tlhcd,lhgd->tlhcg", as_float32(levels)[..., 1:, :], weighted
        )  # [t, L, H, count, G]
        most = scores.max(3)
        return most + np.log(np.exp(scores - most[..., None, :]).sum(3))

    def _row(self, keys: Tensor) -> Tensor:
        """Keys of a frame [L, H, m, Dh] -> [L, H, 1 + count, Dh + 1]."""
        points = keys.flatten(0, 1)  # [L * H, m, Dh]
        number, tokens, width = points.shape
        centroids, counts = k_means(points, self._count, self._rounds)
        row = torch.zeros(number, 1 + self._count, width + 1)
        row[:, :, -1] = _NONE
        row[:, 0, :-1] = points.mean(1)
        row[:, 0, -1] = float(np.log(tokens))
        row[:, 1 : 1 + counts.shape[1], :-1] = centroids
        # an empty cluster weighs nothing
        row[:, 1 : 1 + counts.shape[1], -1] = counts.log().clamp(min=_NONE)
        return row.unflatten(0, keys.shape[:2])
