"""Fewer visual tokens for the same frames: VisualTokens in, VisualTokens out.

Knows tokens and their grid positions; nothing of pixels, models or questions. Every compressor
keeps the order of the tokens and at least one token of every frame, so compressors chain.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, normalize

from encoders.schema import Compressor, StatefulCompressor, VisualTokens


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
        means = frame_means(visual)
        repeats = near_duplicates(means, self.threshold).to(visual.offsets.device)
        if visual.repeats is not None:
            repeats |= visual.repeats
        return replace(as_means(visual, means, repeats), repeats=repeats)


@dataclass(frozen=True)
class TokenMerging:
    """Merge the most alike tokens of each frame until a share of them is left (ToMe, arXiv
    2210.09461).

    A round divides the tokens in turn into A and B. Each of A is compared with all of B by cosine,
    and the most alike are added to their partners: means that are weighted by how many tokens each
    stands for, so that the sum over a frame of size times token stays. A round merges half of the
    tokens at most. A merged token keeps its partner's place, so places stay in order and none comes
    twice. Tokens are merged where the language model reads them, behind the projector, so no
    attention knows the sizes.

    keep: share of each frame's tokens that is left, rounded up.
    """

    keep: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.keep <= 1:
            raise ValueError(
                f"keep={self.keep} is no share of a frame's tokens; use a value above 0, up to 1"
            )

    def __call__(self, visual: VisualTokens) -> VisualTokens:
        tokens, kept = [], []
        for first, stop in visual.ranges():
            count = math.ceil(self.keep * (stop - first))
            own, places, _ = merged_tokens(visual.tokens[first:stop], count)
            tokens.append(own)
            kept.append(first + places.to(visual.pos.device))
        counts = torch.tensor([len(own) for own in tokens])
        return replace(
            visual,
            tokens=torch.cat(tokens),
            pos=visual.pos[torch.cat(kept)],
            offsets=torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)]),
        )


@dataclass(frozen=True)
class Chain:
    """One compressor after another."""

    parts: Sequence[Compressor]

    def __post_init__(self) -> None:
        if not self.parts:
            raise ValueError(
                f"parts={self.parts!r}: a chain needs at least one compressor; use compressor=none"
            )
        if any(isinstance(part, StatefulCompressor) for part in self.parts):
            raise ValueError("a compressor that carries frames on is no part of a chain")
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


def frame_means(visual: VisualTokens) -> Tensor:
    """[T, D] float32: the mean of the tokens of each frame."""
    return torch.stack([visual.tokens[a:b].float().mean(0) for a, b in visual.ranges()])


def as_means(visual: VisualTokens, means: Tensor, chosen: Tensor) -> VisualTokens:
    """The same frames, those of `chosen` ([T] bool) with one token: their mean, at the place of
    their middle token. means: [T, D].
    """
    middles = ((visual.offsets[:-1] + visual.offsets[1:] - 1) // 2)[chosen]
    mask = ~chosen.repeat_interleave(visual.offsets.diff())
    mask[middles] = True
    tokens = visual.tokens.clone()
    tokens[middles] = means[chosen].to(tokens.dtype)
    return replace(visual, tokens=tokens).keep(mask)


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


def merged_tokens(tokens: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """`count` tokens from [m, D] by bipartite matching; their numbers before, rising [count] int64;
    and how many tokens each stands for [count] float32.
    """
    sums, sizes = tokens.float(), torch.ones(len(tokens), 1, device=tokens.device)
    places = torch.arange(len(tokens), device=tokens.device)
    while len(sums) > count:
        unit = normalize(sums, dim=1)
        cosine, partner = (unit[0::2] @ unit[1::2].T).max(1)  # of each of A, in B
        most = min(len(sums) - count, len(sums) // 2)
        merged = 2 * cosine.sort(descending=True, stable=True).indices[:most]
        targets = 2 * partner[merged // 2] + 1
        sums = sums.index_add(0, targets, sums[merged])
        sizes = sizes.index_add(0, targets, sizes[merged])
        rest = torch.ones(len(sums), dtype=torch.bool, device=sums.device)
        rest[merged] = False
        sums, sizes, places = sums[rest], sizes[rest], places[rest]
    means = torch.where(sizes > 1, sums / sizes, tokens[places].float())
    return means.to(tokens.dtype), places, sizes[:, 0]


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
        rows[cell_middles(len(rows), high)],
        columns[cell_middles(len(columns), wide)],
    )  # [T * high * wide, 3]
    return replace(
        visual,
        tokens=pooled.permute(0, 2, 3, 1).reshape(-1, width).to(visual.tokens.dtype),
        pos=pos,
        offsets=torch.arange(frames + 1, dtype=torch.int64) * (high * wide),
    )


def cell_middles(cells: int, pooled: int) -> Tensor:
    """[pooled] int64: the middle of each of the ranges that adaptive pooling averages."""
    starts = [i * cells // pooled for i in range(pooled)]
    stops = [-(-(i + 1) * cells // pooled) for i in range(pooled)]
    return torch.tensor(
        [(start + stop - 1) // 2 for start, stop in zip(starts, stops, strict=True)]
    )
