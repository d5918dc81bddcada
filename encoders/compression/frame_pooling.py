"""Stored frames at a lower resolution: the means of cells of each frame's grid.

Oryx (arXiv 2409.12961) compresses a frame 1 to 16 times on request: its published code averages
cells of 2 x 2 or 4 x 4 tokens (`avg_pool2d`), and a trained attention adds to that. Here the means
are all, for any whole ratio. Knows tokens and grids; nothing of questions.
"""

import functools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch.nn.functional import adaptive_avg_pool2d

from encoders.compressors import cell_middles, token_grid
from encoders.schema import VisualTokens, join_tokens

MOST_RATIO = 16


def pooled_counts(tokens: np.ndarray, ratio: int) -> np.ndarray:
    """[T] int64: how many tokens frames of so many tokens have at this ratio, at least one."""
    return np.maximum(tokens // ratio, np.minimum(tokens, 1))


def pooled(visual: VisualTokens, ratio: int) -> VisualTokens:
    """The frames with a `ratio`-th of their tokens each, rounded down; ratio 1: the same record.

    See `pooled_frame`. T * N * D additions, no parameter.
    """
    if ratio == 1:
        return visual
    frames = (visual.frames(t, t + 1) for t in range(len(visual.times)))
    return join_tokens(
        [pooled_frame(frame, max(1, len(frame.tokens) // ratio)) for frame in frames]
    )


def pooled_frame(frame: VisualTokens, count: int) -> VisualTokens:
    """One frame (T = 1) with exactly `count` tokens, 1 to as many as it has.

    A frame that fills its grid is averaged in cells that are as square as the count allows. One
    that a compressor has thinned out is averaged in runs of neighboring tokens. A mean takes the
    grid position at the middle of its cell.
    """
    try:
        rows, columns = token_grid(frame)
        high, wide = len(rows), len(columns)
    except ValueError:  # tokens are missing in its grid
        high, wide = 1, len(frame.tokens)
    tokens = frame.tokens.float().T.reshape(1, -1, high, wide)
    bands = pooled_bands(high, wide, count)
    means, middles = [], []
    for band, columns_of in enumerate(bands):
        first, stop = band * high // len(bands), -(-(band + 1) * high // len(bands))
        own = adaptive_avg_pool2d(tokens[:, :, first:stop], (1, columns_of))
        means.append(own[0, :, 0].T)  # [columns, D]
        row = int(cell_middles(high, len(bands))[band])
        middles.append(row * wide + cell_middles(wide, columns_of))
    return replace(
        frame,
        tokens=torch.cat(means).to(frame.tokens.dtype),
        pos=frame.pos[torch.cat(middles)],
        offsets=torch.tensor([0, count]),
    )


@functools.lru_cache(maxsize=1024)
def pooled_bands(high: int, wide: int, count: int) -> Sequence[int]:
    """How `count` cells cover a high x wide grid: the number of cells in each band of rows.

    Equally many in each band where cells are then at most twice as long as wide, the squarest
    first: a count of 1 / b^2 of the tokens, where b divides both sides, gives cells of b x b.
    Otherwise bands whose counts differ by one.
    """

    def stretch(bands: int) -> float:
        sides = (high / bands, wide * bands / count)
        return max(sides) / min(sides)

    possible = range(-(-count // wide), min(high, count) + 1)
    even = [bands for bands in possible if count % bands == 0 and stretch(bands) <= 2]
    bands = min(even or possible, key=stretch)
    return tuple(count * (band + 1) // bands - count * band // bands for band in range(bands))
