"""Frames by attention in windows, one after another (InfiniRetri, arXiv 2502.12962).

A context that is too long for one softmax is read a window of frames at a time. Of the frames of a
window and those kept before, the ones that get most of the question's attention are kept, and go on
with the next window:
    kept <- the best `keep` of kept and window, by the mean over heads of softmax(scores of both)
So a frame competes with its window and with the best frames so far, and not with all of a day. The
paper keeps sentences by the attention of the last layer; here frames are kept whole, by all layers
and heads. With one window it is the soft vote of all frames. Cost: that of the soft vote, (window +
keep) / window times. Knows scores only.
"""

import numpy as np

from memory.retrieval import topk


def attention_scan(scores: np.ndarray, window: int, keep: int) -> np.ndarray:
    """[T] float32: the share of attention of each frame in the window where it was last compared,
    less 1 if it was dropped there. scores: [N, T] logarithms of the attention of N heads."""
    count = scores.shape[1]
    values = np.zeros(count, np.float32)
    kept = np.zeros(0, np.int64)
    for first in range(0, count, window):
        stop = min(first + window, count)
        together = np.concatenate([kept, np.arange(first, stop)])
        rows = scores[:, together]
        rows = np.exp(rows - rows.max(1, keepdims=True))
        rows /= rows.sum(1, keepdims=True)
        shares = rows.mean(0)
        values[together] = shares
        if stop < count:
            best = topk.best(shares, min(keep, len(together)))
            kept = np.sort(together[best])
            values[np.setdiff1d(together, kept)] -= 1
    return values
