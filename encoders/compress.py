"""Fewer visual tokens for the same frames: VisualTokens in, VisualTokens out.

Knows tokens and their grid places; nothing of pixels, models or questions. Every part keeps the order of the tokens and
at least one token of every frame, so parts chain. Which tokens stay is decided apart from dropping them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from encoders.schema import Compressor, VisualTokens


@dataclass(frozen=True)
class NoCompression:
    """Every token stays."""

    def __call__(self, seen: VisualTokens) -> VisualTokens:
        return seen


@dataclass(frozen=True)
class Pool:
    """The mean of the tokens in each cell of a size x size grid; a side shorter than `size` stays as it is.

    A pooled token takes the grid place of the middle of its cell.
    """

    size: int = 7

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size={self.size}: a pooled grid has at least 1 x 1 cells; 7 keeps 49 tokens a frame")

    def __call__(self, seen: VisualTokens) -> VisualTokens:
        rows, columns = grid(seen)
        high, wide = min(self.size, len(rows)), min(self.size, len(columns))
        frames, width = len(seen.times), seen.tokens.shape[1]
        tokens = seen.tokens.float().reshape(frames, len(rows), len(columns), width).permute(0, 3, 1, 2)
        pooled = adaptive_avg_pool2d(tokens, (high, wide))  # [T, D, high, wide]
        pos = torch.cartesian_prod(
            torch.arange(frames, dtype=seen.pos.dtype, device=seen.pos.device),
            rows[_middles(len(rows), high)],
            columns[_middles(len(columns), wide)],
        )  # [T * high * wide, 3]
        return replace(
            seen,
            tokens=pooled.permute(0, 2, 3, 1).reshape(-1, width).to(seen.tokens.dtype),
            pos=pos,
            offsets=torch.arange(frames + 1, dtype=torch.int64) * (high * wide),
        )


@dataclass(frozen=True)
class FrameDiff:
    """Drop the tokens that barely changed since the frame before (after VideoLLaMA3, arXiv 2501.13106, which compares
    pixels). The first frame stays whole; a frame in which nothing changed keeps its most changed token.

    threshold: length of the change, in units of the length of the token before, above which a token stays.
    """

    threshold: float = 0.1

    def __post_init__(self) -> None:
        if not self.threshold > 0:
            raise ValueError(f"threshold={self.threshold} would drop nothing; use a value above 0, or compressor=none")

    def __call__(self, seen: VisualTokens) -> VisualTokens:
        change = changes(seen)
        return seen.keep((change > self.threshold) | most_changed(seen, change))


@dataclass(frozen=True)
class Chain:
    """One compressor after the other."""

    parts: Sequence[Compressor]

    def __post_init__(self) -> None:
        if not self.parts:
            raise ValueError(f"parts={self.parts!r}: a chain needs at least one compressor; use compressor=none")
        object.__setattr__(self, "parts", tuple(self.parts))

    def __call__(self, seen: VisualTokens) -> VisualTokens:
        for part in self.parts:
            seen = part(seen)
        return seen


def grid(seen: VisualTokens) -> tuple[Tensor, Tensor]:
    """The rows and the columns of the grid that every frame fills, or a ValueError when one does not."""
    rows, columns = torch.unique(seen.pos[:, 1]), torch.unique(seen.pos[:, 2])
    frames = torch.arange(len(seen.times), dtype=seen.pos.dtype, device=seen.pos.device)
    whole = torch.cartesian_prod(frames, rows, columns)
    if not torch.equal(seen.pos, whole):
        raise ValueError(
            f"{len(seen.pos)} tokens of {len(frames)} frames do not fill a grid of {len(rows)} x {len(columns)} row by "
            "row; pool before any compressor that drops tokens"
        )
    return rows, columns


def changes(seen: VisualTokens) -> Tensor:
    """[N] float32: how far each token moved from the token at its place one frame before, in lengths of that token.

    Infinite where that place held no token: in the first frame, or after another compressor.
    """
    frame, row, column = seen.pos.long().unbind(1)
    high, wide = int(row.max()) + 1, int(column.max()) + 1
    place = (frame * high + row) * wide + column  # [N] one number for each place of each frame
    known, order = place.sort()
    wanted = place - high * wide  # the same place, one frame before
    found = torch.searchsorted(known, wanted).clamp(max=len(known) - 1)
    there = known[found] == wanted  # [N] bool
    now, before = seen.tokens[there].float(), seen.tokens[order[found[there]]].float()
    change = torch.full((len(place),), torch.inf, device=seen.tokens.device)
    lengths = before.norm(dim=1).clamp(min=1e-6)
    change[there.to(change.device)] = (now - before).norm(dim=1) / lengths
    return change.to(seen.offsets.device)


def most_changed(seen: VisualTokens, change: Tensor) -> Tensor:
    """[N] bool: the one token of each frame that changed most, the first of equals."""
    mask = torch.zeros(len(change), dtype=torch.bool, device=change.device)
    for first, stop in seen.ranges():
        mask[first + int(change[first:stop].argmax())] = True
    return mask


def _middles(cells: int, pooled: int) -> Tensor:
    """[pooled] int64: the middle of each of the ranges that adaptive pooling averages."""
    starts = [i * cells // pooled for i in range(pooled)]
    stops = [-(-(i + 1) * cells // pooled) for i in range(pooled)]
    return torch.tensor([(start + stop - 1) // 2 for start, stop in zip(starts, stops, strict=True)])
