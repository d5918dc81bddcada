"""Which frames to recall: arithmetic over ordinals, token counts and rankings.

Knows no tensors of a segment, no files, no retriever. An ordinal numbers frames in time order:
those of one video, or those that a question may see, video by video.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from encoders.errors import UserError


@dataclass(frozen=True, slots=True)
class FrameSelection:
    """Frames selected within a token budget."""

    recent: list[int]  # ordinals of the newest frames, rising
    ranked: list[int]  # ordinals of other frames, best first
    free_tokens: int  # what is left of the budget
    # ordinal -> ratio of the frames that are read at a lower resolution (memory/resolution/)
    ratios: Mapping[int, int] = field(default_factory=dict)

    @property
    def ordinals(self) -> list[int]:
        """All selected frames, rising."""
        return sorted(self.recent + self.ranked)


def newest(cost: np.ndarray, recent_frames: int, budget: int) -> FrameSelection:
    """The newest frames that fit, at most `recent_frames`. cost: [visible] tokens of each frame."""
    recent: list[int] = []
    for ordinal in range(len(cost) - 1, max(len(cost) - 1 - recent_frames, -1), -1):
        if cost[ordinal] > budget:
            break
        budget -= int(cost[ordinal])
        recent.append(ordinal)
    return FrameSelection(recent[::-1], [], budget)


def fill(selection: FrameSelection, ranking: Iterable[int], cost: np.ndarray) -> FrameSelection:
    """Add ranked frames, best first. A frame that does not fit is skipped; smaller ones may still
    fit."""
    chosen = set(selection.recent + selection.ranked)
    ranked, free = list(selection.ranked), selection.free_tokens
    for ordinal in ranking:
        if ordinal not in chosen and cost[ordinal] <= free:
            chosen.add(ordinal)
            ranked.append(ordinal)
            free -= int(cost[ordinal])
    return FrameSelection(selection.recent, ranked, free)


def at_ratios(
    selection: FrameSelection, ratios: Mapping[int, int], recent_ratio: int
) -> FrameSelection:
    """The selected newest frames at their ratio, and further frames at theirs. What is left of the
    budget is not counted."""
    recent = dict.fromkeys(selection.recent, recent_ratio)
    return FrameSelection(selection.recent, list(ratios), 0, {**recent, **ratios})


def fill_layers(
    selection: FrameSelection,
    rankings: np.ndarray,
    shared: Sequence[int],
    cost: np.ndarray,
    shares: np.ndarray | None = None,
) -> tuple[FrameSelection, np.ndarray]:
    """Add each layer's own best frames: rank by rank over all layers, or by the layers' shares.

    The reader loads the union, so the budget counts the union. Once a rank, or with shares a frame,
    does not fit, the rest of the budget goes to the shared ranking, for all layers. rankings: [L,
    k], best first. shares: [L], sum 1: how the layers divide the budget; None: evenly.

    Returns the union, and for each layer its frames: [L, n] rising ordinals. A layer reads the
    recent frames, its own best, and the shared ones. Shorter layers are filled up with further
    frames of the union, their own next ones first.
    """
    union, free = dict.fromkeys(selection.recent), selection.free_tokens
    depths, steps = [0] * len(rankings), [list(range(len(rankings)))] * rankings.shape[1]
    if shares is not None:
        steps = [[layer] for layer in _turns(shares, rankings.shape[1])]
    for turn in steps:
        # the frame that each of these layers has next
        new = sorted({int(rankings[layer, depths[layer]]) for layer in turn} - union.keys())
        price = int(cost[new].sum())
        if price > free:
            break
        union |= dict.fromkeys(new)
        free -= price
        for layer in turn:
            depths[layer] += 1
    ranked = [ordinal for ordinal in union if ordinal not in set(selection.recent)]
    filled = fill(FrameSelection(selection.recent, ranked, free), shared, cost)
    for_all = [*selection.recent, *filled.ranked[len(ranked) :]]
    union |= dict.fromkeys(for_all)
    own = [
        dict.fromkeys([*for_all, *layer[:depth]])
        for layer, depth in zip(rankings.tolist(), depths, strict=True)
    ]
    count = max(len(frames) for frames in own)
    for frames, ranking in zip(own, rankings.tolist(), strict=True):
        for ordinal in [*ranking, *union]:
            if len(frames) < count and ordinal in union:
                frames[ordinal] = None
    layers = np.array([sorted(frames) for frames in own], dtype=np.int64)
    return filled, layers.reshape(len(own), count)


def of_heads(
    selection: FrameSelection, rankings: np.ndarray, for_all: Iterable[int], top: int
) -> np.ndarray:
    """What each head reads of selected frames: the recent ones, those for all, and its own best
    ones of the others, `top` at most. rankings: [N, k] of each head, best first. A head whose
    ranking names fewer gets the next selected ones.

    Returns [N, n] rising ordinals.
    """
    chosen = set(selection.ordinals)
    shared = dict.fromkeys([*selection.recent, *(each for each in for_all if each in chosen)])
    rows = []
    for ranking in rankings.tolist():
        others = dict.fromkeys(each for each in [*ranking, *selection.ranked] if each in chosen)
        own = [each for each in others if each not in shared][:top]
        rows.append(sorted([*shared, *own]))
    return np.array(rows, dtype=np.int64).reshape(len(rows), -1)


def _turns(shares: np.ndarray, most: int) -> Iterator[int]:
    """Layers in turn, each as often as its share says, and `most` times at most; of equal ones the
    lower comes first."""
    taken = np.zeros(len(shares))
    while (taken < most).any():
        due = np.where(taken < most, (taken + 1) / np.maximum(shares, 1e-9), np.inf)
        layer = int(due.argmin())
        taken[layer] += 1
        yield layer


def runs(frames: Iterable[int], edges: Sequence[int] | np.ndarray) -> list[tuple[int, int, int]]:
    """Group neighboring frames of one segment: (index into `edges`, first ordinal, ordinal after
    the last).
    frames: rising ordinals."""
    grouped: list[tuple[int, int, int]] = []
    for ordinal in frames:
        segment = bisect_right(edges, ordinal) - 1
        if grouped and grouped[-1][0] == segment and grouped[-1][2] == ordinal:
            grouped[-1] = (segment, grouped[-1][1], ordinal + 1)
        else:
            grouped.append((segment, ordinal, ordinal + 1))
    assert all(a[2] <= b[1] for a, b in pairwise(grouped)), grouped
    return grouped


def neighbors(selection: FrameSelection, frames: int, most: int) -> list[int]:
    """Ordinals of the `most` unselected frames that are nearest to the best selected ones, rising.

    These are the frames that a follow-up question ("and after that?") is likely to recall.
    Neighbors of better frames come first. frames: how many the video has.
    """
    chosen, near = set(selection.recent + selection.ranked), dict[int, None]()
    for distance in range(1, most + 1):
        for ordinal in selection.ranked[:most]:
            for other in (ordinal + distance, ordinal - distance):
                if len(near) < most and 0 <= other < frames and other not in chosen:
                    near[other] = None
        if len(near) >= most:
            break
    return sorted(near)


def ranking_depth(cost: np.ndarray, selection: FrameSelection) -> int:
    """How many frames a ranking must name so that it cannot end before the budget does."""
    cheapest = max(int(cost.min()), 1)
    return min(len(cost), selection.free_tokens // cheapest + len(selection.recent))


def refuse_too_small(cost: np.ndarray, recent_frames: int, read_tokens: int) -> None:
    """UserError if the budget does not hold the newest frame, which every answer reads, or any
    frame at all."""
    needed = 0 if len(cost) == 0 else int(cost[-1] if recent_frames else cost.min())
    if needed > read_tokens:
        raise UserError(
            f"read_tokens={read_tokens} is below one frame ({needed} tokens with its time tag); "
            "raise read_tokens or compress frames more"
        )
