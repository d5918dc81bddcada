"""The mean key of a frame, as in ReKV (arXiv 2503.00540), and in MoBA's gate of blocks (arXiv
2502.13189) without its training.

    score(q, frame) = <q, mean of the frame's keys>

Cost: H * Dh numbers of float16 for a frame and layer, and as many products for each query.
"""

import numpy as np
import torch

from memory.schema import SegmentIndex


class MeanKey:
    """One key for a frame. cosine: the length of the mean key does not count."""

    reads = frozenset({"key_means"})
    rows_name = "keys"
    dtype: type[np.generic] = np.float16
    keep = 1.0

    def __init__(self, *, cosine: bool = False) -> None:
        self._cosine = cosine
        self.is_linear = not cosine

    def rows(self, segment: SegmentIndex) -> np.ndarray | None:
        """[T, L, H * Dh] float32."""
        means = segment.key_means
        return None if means is None else means.float().cpu().numpy()

    def numbers(self, head_width: int) -> int:
        return head_width

    def scores(self, rows: np.ndarray, queries: np.ndarray, *, coarse: bool = False) -> np.ndarray:
        layers, heads, group, width = queries.shape
        keys = as_float32(rows).reshape(len(rows), layers, heads, width)
        if group == 1:  # a matrix product took five times as long
            scores = np.einsum("tlhd,lhd->tlh", keys, queries[:, :, 0])[..., None]
        else:
            scores = np.einsum("tlhd,lhgd->tlhg", keys, queries)
        if not self._cosine:
            return scores
        # the length of the query does not change the ranking of its head
        lengths = np.sqrt(np.einsum("tlhd,tlhd->tlh", keys, keys))[..., None]
        return np.divide(scores, lengths, out=np.zeros_like(scores), where=lengths > 0)


def as_float32(rows: np.ndarray) -> np.ndarray:
    """The same numbers. torch converts float16 ten times faster than numpy."""
    return torch.from_numpy(rows).float().numpy()
