"""The channels of a frame's mean key that matter most: chosen by the query as in SparQ Attention
(arXiv 2312.04985), or once for a model as in Double Sparsity (arXiv 2408.07092).

    score(q, frame) = sum over `count` channels i of q_i (mean of k)_i
    by the query: the channels with the largest |q_i|, for each query head apart
    by a profile: the channels with the largest importance, for each layer and KV head

With as many channels as a head has, this is the mean key. SparQ and Double Sparsity score every
token; here it is the mean key, because a frame is what is read.
Cost: by the query, the bytes of mean keys and `count / Dh` of their products; by a profile,
`count / Dh` of both. `python -m pipeline.evaluation.profiles.channel_profile` makes a profile.
"""

import hashlib
import json
from pathlib import Path

import numpy as np

from encoders.errors import UserError
from memory.retrieval.block_score.mean_key import as_float32
from memory.schema import SegmentIndex


class ChannelSubset:
    """count: channels of each head. profile: JSON file {"importance": [L][H][Dh]}; None: by the
    query. UserError on a file that cannot be read.
    """

    reads = frozenset({"key_means"})
    dtype: type[np.generic] = np.float16
    keep = 1.0

    def __init__(self, *, count: int = 16, profile: str | None = None) -> None:
        if count < 1:
            raise UserError(f"block_score.count={count} gives no channel; use 1 or more.")
        self._count = count
        # [L, H, count] int64: the channels of each head, rising; None: by the query
        self._channels = None if profile is None else _channels(Path(profile), count)
        # heads that share a key head choose other channels by their queries
        self.is_linear = self._channels is not None
        self.rows_name = "keys"  # rows by the query are mean keys
        if self._channels is not None:
            digest = hashlib.sha256(self._channels.tobytes()).hexdigest()[:8]
            self.rows_name = f"channels-{digest}"

    def rows(self, segment: SegmentIndex) -> np.ndarray | None:
        """[T, L, H * count] float32, or [T, L, H * Dh] by the query. UserError if the profile is of
        another model."""
        if segment.key_means is None:
            return None
        means: np.ndarray = segment.key_means.float().cpu().numpy()
        if self._channels is None:
            return means
        layers, heads, _ = self._channels.shape
        if means.shape[1] != layers or means.shape[2] % heads:
            raise UserError(
                f"block_score.profile= is of a model with {layers} layers and {heads} KV heads, "
                f"and the bank has {means.shape[1]} layers of {means.shape[2]} numbers; make one "
                "of the bank's model."
            )
        keys = means.reshape(len(means), layers, heads, -1)
        own = np.take_along_axis(keys, self._channels[None], axis=3)
        return own.reshape(len(means), layers, -1)

    def numbers(self, head_width: int) -> int:
        return head_width if self._channels is None else self._channels.shape[2]

    def scores(self, rows: np.ndarray, queries: np.ndarray, *, coarse: bool = False) -> np.ndarray:
        layers, heads, group, width = queries.shape
        keys = as_float32(rows).reshape(len(rows), layers, heads, -1)  # [t, L, H, Dh or count]
        if self._channels is not None:
            chosen = self._channels[:, :, None].repeat(group, axis=2)
            queries = np.take_along_axis(queries, chosen, axis=3)
            return np.einsum("tlhd,lhgd->tlhg", keys, queries)
        count = min(self._count, width)
        # the sort is stable, so that equal numbers rank alike on every machine
        order = np.argsort(-np.abs(queries), axis=3, kind="stable")[..., :count]
        chosen = np.sort(order, axis=3)  # [L, H, G, count]
        own = np.take_along_axis(queries, chosen, axis=3)
        scores = [
            np.einsum(
                "tlhd,lhd->tlh",
                np.take_along_axis(keys, chosen[None, :, :, number], axis=3),
                own[:, :, number],
            )
            for number in range(group)
        ]
        return np.stack(scores, -1)


def _channels(path: Path, count: int) -> np.ndarray:
    """[L, H, count] int64, rising."""
    try:
        importance = np.array(json.loads(path.read_text())["importance"], np.float64)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"block_score.profile={path} cannot be read as a profile of channels; make one with "
            "python -m pipeline.evaluation.profiles.channel_profile."
        ) from error
    if importance.ndim != 3 or not np.isfinite(importance).all():
        raise UserError(
            f"block_score.profile={path} must have finite numbers [layer][KV head][channel]."
        )
    order = np.argsort(-importance, axis=2, kind="stable")[..., :count]
    return np.sort(order, axis=2)
