"""Stored frames at a lower resolution: the means of cells of each frame's grid.

Oryx (arXiv 2409.12961) compresses a frame 1 to 16 times on request: its published code averages
cells of 2 x 2 or 4 x 4 tokens (`avg_pool2d`), and a trained attention adds to that. Here the means
are all, for any whole ratio. Knows tokens and grids; nothing of questions.
"""

import functools

import numpy as np
import torch
from torch.nn.functional import adaptive_avg_pool2d

from encoders.compressors import cell_middles, token_grid
from encoders.schema import VisualTokens, join_tokens

MOST_RATIO = 16


def pooled_counts(tokens: np.ndarray, ratio: int) -> np.ndarray:
    """[T] int64: the most tokens that frames of so many tokens have at this ratio, at least one.
    Where the ratio does not divide the grid, `pooled` may have a few less."""
    return np.maximum(tokens // ratio, np.minimum(tokens, 1))


def pooled(visual: VisualTokens, ratio: int) -> VisualTokens:
    """The frames with at most one `ratio`-th of their tokens each; ratio 1: the same record.

    A frame that fills its grid is averaged in cells that are as square as the count allows. One
    that another compressor has thinned out is averaged in runs of neighboring tokens. A mean takes
    the grid position at the middle of its cell. T * N * D additions, no parameter.
    """
    if ratio == 1:
        return visual
    frames = (visual.frames(t, t + 1) for t in range(len(visual.times)))
    return join_tokens([_pooled_frame(frame, ratio) for frame in frames])


@functools.lru_cache(maxsize=1024)
def pooled_grid(high: int, wide: int, ratio: int) -> tuple[int, int]:
    """(rows, columns) of the cells of a high x wide grid: as many as the ratio allows. Cells are at
    most twice as long as wide where the grid has such; of equally many, the squarest come first.
    A ratio that is a square and divides both sides gives its root by its root tokens a cell.
    """
    most = max(1, high * wide // ratio)

    def rank(rows: int) -> tuple[bool, int, float]:
        columns = min(wide, most // rows)
        sides = (high / rows, wide / columns)
        stretch = max(sides) / min(sides)
        return stretch <= 2, rows * columns, -stretch

    rows = max(range(1, min(high, most) + 1), key=rank)
    return rows, min(wide, most // rows)


def _pooled_frame(frame: VisualTokens, ratio: int) -> VisualTokens:
    """frame: T = 1."""
    count = len(frame.tokens)
    try:
        rows, columns = token_grid(frame)
        high, wide = len(rows), len(columns)
    except ValueError:  # tokens are missing in its grid
        high, wide = 1, count
    cells = pooled_grid(high, wide, ratio)
    tokens = frame.tokens.float().T.reshape(1, -1, high, wide)
    means = adaptive_avg_pool2d(tokens, cells)[0].flatten(1).T  # [rows * columns, D]
    middles = cell_middles(high, cells[0])[:, None] * wide + cell_middles(wide, cells[1])
    return VisualTokens(
        tokens=means.to(frame.tokens.dtype),
        pos=frame.pos[middles.flatten()],
        offsets=torch.tensor([0, len(means)]),
        times=frame.times,
        firsts=frame.firsts,
        repeats=frame.repeats,
        sides=frame.sides,
    )
