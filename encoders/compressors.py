"""Fewer visual tokens for the same frames: VisualTokens in, VisualTokens out.

Knows tokens and their grid positions; nothing of pixels, models or questions. Every compressor
keeps the order of the tokens and at least one token of every frame, so compressors chain.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, normalize

from encoders.schema import Compressor, VisualTokens


@dataclass(frozen=True)
class NoCompression:
    """Every token stays."""

    def __call__(self, visual: VisualTokens) -> VisualTokens:
        return visual


@dataclass(frozen=True)
class Pool:
    """The mean of the tokens in each cell of a size x size grid; a side shorter than `size` stays
    as it is.

    A pooled token takes the grid position at the middle of its cell.
    """

    size: int = 7

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(
                f"size={self.size}: a pooled grid has at least 1 x 1 cells; 7 keeps 49 tokens a "
                "frame"
            )

    def __call__(self, visual: VisualTokens) -> VisualTokens:
        rows, columns = token_grid(visual)
        return _pooled(
            visual, rows, columns, min(self.size, len(rows)), min(self.size, len(columns))
        )


@dataclass(frozen=True)
class Shrink:
    """Divide both sides of the grid by `by`, rounding up; each cell becomes its mean. Works for any
    grid size.
    """

    by: int = 2

    def __post_init__(self) -> None:
        if self.by < 1:
            raise ValueError(
                f"by={self.by}: a side is divided by 1 or more; 2 keeps a quarter of the tokens"
            )

    def __call__(self, visual: VisualTokens) -> VisualTokens:
        rows, columns = token_grid(visual)
        return _pooled(visual, rows, columns, -(-len(rows) // self.by), -(-len(columns) // self.by))


@dataclass(frozen=True)
class FrameDiff:
    """Drop the tokens that barely changed since the previous frame (after VideoLLaMA3, arXiv
    2501.13106, which compares pixels). The first frame stays whole; a frame without change keeps
    its most changed token.

    threshold: length of the change, relative to the length of the earlier token, above which a
    token stays.
    """

    threshold: float = 0.1

    def __post_init__(self) -> None:
        if not self.threshold > 0:
            raise ValueError(
                f"threshold={self.threshold} would drop nothing; use a value above 0, or "
                "compressor=none"
            )

    def __call__(self, visual: VisualTokens) -> VisualTokens:
        change = token_changes(visual)
        return visual.keep((change > self.threshold) | most_changed_tokens(visual, change))


@dataclass(frozen=True)
class Merge:
    """Reduce each near-duplicate frame to one token, the mean of its tokens (after StreamMem, arXiv
    2508.15717).

    A frame is a near-duplicate if the mean of its tokens has a cosine above `threshold` with the
    mean of the last frame that is not a near-duplicate. So a slow drift starts a new frame in time.
    A near-duplicate keeps its place in time, so ordinals, times and spans stay true. It is marked
    in `repeats`: it gets no time tag, and search finds the whole frame first. Causal; the first
    frame of a segment is never merged, so a segment can be read without its neighbors.
    """

    threshold: float = 0.95

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise ValueError(
                f"threshold={self.threshold} is no cosine of near-duplicates; use a value above 0, "
                "up to 1"
            )

    def __call__(self, visual: VisualTokens) -> VisualTokens:
        means = torch.stack(
            [visual.tokens[a:b].float().mean(0) for a, b in visual.ranges()]
        )  # [T, D]
        repeats = near_duplicates(means, self.threshold).to(visual.offsets.device)
        if visual.repeats is not None:
            repeats |= visual.repeats
        middles = ((visual.offsets[:-1] + visual.offsets[1:] - 1) // 2)[repeats]
        mask = ~repeats.repeat_interleave(visual.offsets.diff())
        mask[middles] = True
        tokens = visual.tokens.clone()
        tokens[middles] = means[repeats].to(tokens.dtype)
        return replace(replace(visual, tokens=tokens).keep(mask), repeats=repeats)


@dataclass(frozen=True)
class Chain:
    """One compressor after another."""

    parts: Sequence[Compressor]

    def __post_init__(self) -> None:
        if not self.parts:
            raise ValueError(
                f"parts={self.parts!r}: a chain needs at least one compressor; use compressor=none"
            )
        object.__setattr__(self, "parts", tuple(self.parts))

    def __call__(self, visual: VisualTokens) -> VisualTokens:
        for part in self.parts:
            visual = part(visual)
        return visual


def token_grid(visual: VisualTokens) -> tuple[Tensor, Tensor]:
    """The rows and the columns of the grid that every frame fills. ValueError if a frame does not
    fill it.
    """
    rows, columns = torch.unique(visual.pos[:, 1]), torch.unique(visual.pos[:, 2])
    frames = torch.arange(len(visual.times), dtype=visual.pos.dtype, device=visual.pos.device)
    whole = torch.cartesian_prod(frames, rows, columns)
    if not torch.equal(visual.pos, whole):
        raise ValueError(
            f"{len(visual.pos)} tokens of {len(frames)} frames do not fill a grid of {len(rows)} x "
            f"{len(columns)} row by "
            "row; pool before any compressor that drops tokens"
        )
    return rows, columns


def near_duplicates(features: Tensor, threshold: float) -> Tensor:
    """[T] bool: True for a frame whose feature has a cosine above `threshold` with that of the last
    earlier frame marked False. features: [T, D] float32. Never True for the first frame.
    """
    unit = normalize(features, dim=1)
    alike = (unit @ unit.T > threshold).tolist()
    last, repeats = 0, [False]
    for t in range(1, len(features)):
        repeats.append(alike[last][t])
        last = last if alike[last][t] else t
    return torch.tensor(repeats)


def token_changes(visual: VisualTokens) -> Tensor:
    """[N] float32: the change of each token since the token at its position one frame before,
    relative to that token's length. If the frame before repeats another, the other one counts.

    Infinite if that position held no token: in the first frame, or after another compressor.
    """
    frame, row, column = visual.pos.long().unbind(1)
    high, wide = int(row.max()) + 1, int(column.max()) + 1
    place = (frame * high + row) * wide + column  # [N] one number per position of each frame
    occupied, order = place.sort()
    before = torch.cat([torch.tensor([-1]), visual.representatives[:-1]]).to(place.device)  # [T]
    target = (before[frame] * high + row) * wide + column  # the same position in the frame before
    index = torch.searchsorted(occupied, target).clamp(max=len(occupied) - 1)
    matched = occupied[index] == target  # [N] bool
    now, then = visual.tokens[matched].float(), visual.tokens[order[index[matched]]].float()
    change = torch.full((len(place),), torch.inf, device=visual.tokens.device)
    lengths = then.norm(dim=1).clamp(min=1e-6)
    change[matched.to(change.device)] = (now - then).norm(dim=1) / lengths
    return change.to(visual.offsets.device)


def most_changed_tokens(visual: VisualTokens, change: Tensor) -> Tensor:
    """[N] bool: the one token of each frame that changed most; the first one on a tie."""
    mask = torch.zeros(len(change), dtype=torch.bool, device=change.device)
    for first, stop in visual.ranges():
        mask[first + int(change[first:stop].argmax())] = True
    return mask


def _pooled(
    visual: VisualTokens, rows: Tensor, columns: Tensor, high: int, wide: int
) -> VisualTokens:
    """The means of the cells of a high x wide grid over the frames' grid of these rows
    and columns.
    """
    frames, width = len(visual.times), visual.tokens.shape[1]
    tokens = (
        visual.tokens.float().reshape(frames, len(rows), len(columns), width).permute(0, 3, 1, 2)
    )
    pooled = adaptive_avg_pool2d(tokens, (high, wide))  # [T, D, high, wide]
    pos = torch.cartesian_prod(
        torch.arange(frames, dtype=visual.pos.dtype, device=visual.pos.device),
        rows[_middles(len(rows), high)],
        columns[_middles(len(columns), wide)],
    )  # [T * high * wide, 3]
    return replace(
        visual,
        tokens=pooled.permute(0, 2, 3, 1).reshape(-1, width).to(visual.tokens.dtype),
        pos=pos,
        offsets=torch.arange(frames + 1, dtype=torch.int64) * (high * wide),
    )


def _middles(cells: int, pooled: int) -> Tensor:
    """[pooled] int64: the middle of each of the ranges that adaptive pooling averages."""
    starts = [i * cells // pooled for i in range(pooled)]
    stops = [-(-(i + 1) * cells // pooled) for i in range(pooled)]
    return torch.tensor(
        [(start + stop - 1) // 2 for start, stop in zip(starts, stops, strict=True)]
    )
