"""Fewer visual tokens for the same frames: VisualTokens in, VisualTokens out.

Knows tokens and their grid places; nothing of pixels, models or questions. Every part keeps the order of the tokens and
at least one token of every frame, so parts chain. Which tokens stay is decided apart from dropping them.
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
            raise ValueError(
                f"size={self.size}: a pooled grid has at least 1 x 1 cells; 7 keeps 49 tokens a frame"
            )

    def __call__(self, seen: VisualTokens) -> VisualTokens:
        rows, columns = grid(seen)
        return _pooled(seen, rows, columns, min(self.size, len(rows)), min(self.size, len(columns)))


@dataclass(frozen=True)
class Shrink:
    """Both sides of the grid divided by `by` and rounded up, whatever the model's grid: each cell becomes its mean."""

    by: int = 2

    def __post_init__(self) -> None:
        if self.by < 1:
            raise ValueError(
                f"by={self.by}: a side is divided by 1 or more; 2 keeps a quarter of the tokens"
            )

    def __call__(self, seen: VisualTokens) -> VisualTokens:
        rows, columns = grid(seen)
        return _pooled(seen, rows, columns, -(-len(rows) // self.by), -(-len(columns) // self.by))


@dataclass(frozen=True)
class FrameDiff:
    """Drop the tokens that barely changed since the frame before (after VideoLLaMA3, arXiv 2501.13106, which compares
    pixels). The first frame stays whole; a frame in which nothing changed keeps its most changed token.

    threshold: length of the change, in units of the length of the token before, above which a token stays.
    """

    threshold: float = 0.1

    def __post_init__(self) -> None:
        if not self.threshold > 0:
            raise ValueError(
                f"threshold={self.threshold} would drop nothing; use a value above 0, or compressor=none"
            )

    def __call__(self, seen: VisualTokens) -> VisualTokens:
        change = changes(seen)
        return seen.keep((change > self.threshold) | most_changed(seen, change))


@dataclass(frozen=True)
class Merge:
    """Near-duplicate frames become one token, the mean of theirs (after StreamMem, arXiv 2508.15717).

    A frame is a near-duplicate when the mean of its tokens has a cosine above `threshold` with that of the last frame that
    was none: what drifts away slowly is kept anew. It keeps its place in time, so ordinals, times and spans stay true; it
    is marked in `repeats`, so that no text is spent on it and a search finds the whole frame first. Causal; the first frame
    of a segment is never merged, so a segment is read without its neighbours.
    """

    threshold: float = 0.95

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise ValueError(
                f"threshold={self.threshold} is no cosine of near-duplicates; use a value above 0, up to 1"
            )

    def __call__(self, seen: VisualTokens) -> VisualTokens:
        means = torch.stack([seen.tokens[a:b].float().mean(0) for a, b in seen.ranges()])  # [T, D]
        repeats = near_duplicates(means, self.threshold).to(seen.offsets.device)
        if seen.repeats is not None:
            repeats |= seen.repeats
        middles = ((seen.offsets[:-1] + seen.offsets[1:] - 1) // 2)[repeats]
        mask = ~repeats.repeat_interleave(seen.offsets.diff())
        mask[middles] = True
        tokens = seen.tokens.clone()
        tokens[middles] = means[repeats].to(tokens.dtype)
        return replace(replace(seen, tokens=tokens).keep(mask), repeats=repeats)


@dataclass(frozen=True)
class Chain:
    """One compressor after the other."""

    parts: Sequence[Compressor]

    def __post_init__(self) -> None:
        if not self.parts:
            raise ValueError(
                f"parts={self.parts!r}: a chain needs at least one compressor; use compressor=none"
            )
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


def near_duplicates(features: Tensor, threshold: float) -> Tensor:
    """[T] bool: frames whose feature (features: [T, D] float32) has a cosine above `threshold` with that of the last
    frame before them that is no near-duplicate. Never the first."""
    unit = normalize(features, dim=1)
    alike = (unit @ unit.T > threshold).tolist()
    last, found = 0, [False]
    for t in range(1, len(features)):
        found.append(alike[last][t])
        last = last if alike[last][t] else t
    return torch.tensor(found)


def changes(seen: VisualTokens) -> Tensor:
    """[N] float32: how far each token moved from the token at its place one frame before, in lengths of that token; before
    frames that repeat another, from the one they repeat.

    Infinite where that place held no token: in the first frame, or after another compressor.
    """
    frame, row, column = seen.pos.long().unbind(1)
    high, wide = int(row.max()) + 1, int(column.max()) + 1
    place = (frame * high + row) * wide + column  # [N] one number for each place of each frame
    known, order = place.sort()
    before = torch.cat([torch.tensor([-1]), seen.stands_for[:-1]]).to(place.device)  # [T]
    wanted = (before[frame] * high + row) * wide + column  # the same place there
    found = torch.searchsorted(known, wanted).clamp(max=len(known) - 1)
    there = known[found] == wanted  # [N] bool
    now, then = seen.tokens[there].float(), seen.tokens[order[found[there]]].float()
    change = torch.full((len(place),), torch.inf, device=seen.tokens.device)
    lengths = then.norm(dim=1).clamp(min=1e-6)
    change[there.to(change.device)] = (now - then).norm(dim=1) / lengths
    return change.to(seen.offsets.device)


def most_changed(seen: VisualTokens, change: Tensor) -> Tensor:
    """[N] bool: the one token of each frame that changed most, the first of equals."""
    mask = torch.zeros(len(change), dtype=torch.bool, device=change.device)
    for first, stop in seen.ranges():
        mask[first + int(change[first:stop].argmax())] = True
    return mask


def _pooled(
    seen: VisualTokens, rows: Tensor, columns: Tensor, high: int, wide: int
) -> VisualTokens:
    """The means of the cells of a high x wide grid laid over the frames' grid of these rows and columns."""
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


def _middles(cells: int, pooled: int) -> Tensor:
    """[pooled] int64: the middle of each of the ranges that adaptive pooling averages."""
    starts = [i * cells // pooled for i in range(pooled)]
    stops = [-(-(i + 1) * cells // pooled) for i in range(pooled)]
    return torch.tensor(
        [(start + stop - 1) // 2 for start, stop in zip(starts, stops, strict=True)]
    )
