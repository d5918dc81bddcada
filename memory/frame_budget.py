"""Which frames to recall: arithmetic over ordinals, token counts and rankings.

Knows no tensors of a segment, no files, no retriever. Ordinals number the frames of one video in time order.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from encoders.errors import UserError


@dataclass(frozen=True, slots=True)
class Choice:
    """Frames chosen within a budget."""

    recent: list[int]  # the newest, rising
    ranked: list[int]  # others, best first
    left: int  # tokens of the budget that are still free

    @property
    def frames(self) -> list[int]:
        return sorted(self.recent + self.ranked)

    def later(self, first: int) -> "Choice":
        """The same frames, counted from `first` frames earlier."""
        return Choice([first + i for i in self.recent], [first + i for i in self.ranked], self.left)


def newest(cost: np.ndarray, recent_frames: int, budget: int) -> Choice:
    """The newest frames that fit, at most `recent_frames`; cost: [visible] tokens of each frame."""
    recent: list[int] = []
    for ordinal in range(len(cost) - 1, max(len(cost) - 1 - recent_frames, -1), -1):
        if cost[ordinal] > budget:
            break
        budget -= int(cost[ordinal])
        recent.append(ordinal)
    return Choice(recent[::-1], [], budget)


def fill(choice: Choice, ranking: Iterable[int], cost: np.ndarray) -> Choice:
    """Add ranked frames, best first; one that is too large for what is left is passed over, smaller ones still fit."""
    taken, ranked, left = set(choice.recent + choice.ranked), list(choice.ranked), choice.left
    for ordinal in ranking:
        if ordinal not in taken and cost[ordinal] <= left:
            taken.add(ordinal)
            ranked.append(ordinal)
            left -= int(cost[ordinal])
    return Choice(choice.recent, ranked, left)


def fill_layers(
    choice: Choice, rankings: np.ndarray, shared: Sequence[int], cost: np.ndarray
) -> tuple[Choice, np.ndarray]:
    """Add each layer's own frames, one rank of all layers after the other. What is read is the union, so that is what
    the budget counts; what is left when the next rank does not fit goes to the shared ranking, for all layers.
    rankings: [L, k], best first.

    Returns the union and [L, n] rising ordinals: for every layer the recent frames, its own best, the shared ones and,
    so that all layers have the same number, further frames of the union, its own next ones first.
    """
    union, left, depth = dict.fromkeys(choice.recent), choice.left, 0
    for rank in rankings.T.tolist():  # the frame that each layer has at this rank
        new = sorted(set(rank) - union.keys())
        price = int(cost[new].sum())
        if price > left:
            break
        union |= dict.fromkeys(new)
        left -= price
        depth += 1
    ranked = [ordinal for ordinal in union if ordinal not in set(choice.recent)]
    filled = fill(Choice(choice.recent, ranked, left), shared, cost)
    for_all = [*choice.recent, *filled.ranked[len(ranked) :]]
    union |= dict.fromkeys(for_all)
    own = [dict.fromkeys([*for_all, *layer[:depth]]) for layer in rankings.tolist()]
    count = max(len(frames) for frames in own)
    for frames, ranking in zip(own, rankings.tolist(), strict=True):
        for ordinal in [*ranking, *union]:
            if len(frames) < count and ordinal in union:
                frames[ordinal] = None
    return filled, np.array([sorted(frames) for frames in own], dtype=np.int64).reshape(
        len(own), count
    )


def runs(frames: Iterable[int], edges: Sequence[int] | np.ndarray) -> list[tuple[int, int, int]]:
    """Neighbouring frames of one segment together: (its place among `edges`, first ordinal, ordinal after the last).
    frames: rising."""
    found: list[tuple[int, int, int]] = []
    for ordinal in frames:
        segment = bisect_right(edges, ordinal) - 1
        if found and found[-1][0] == segment and found[-1][2] == ordinal:
            found[-1] = (segment, found[-1][1], ordinal + 1)
        else:
            found.append((segment, ordinal, ordinal + 1))
    assert all(a[2] <= b[1] for a, b in pairwise(found)), found
    return found


def neighbours(choice: Choice, frames: int, most: int) -> list[int]:
    """The `most` frames nearest to the best ones that were chosen, those of better ones first, and not chosen themselves;
    rising. What a follow-up ("and after that?") is likely to recall. frames: that there are."""
    taken, found = set(choice.recent + choice.ranked), dict[int, None]()
    for distance in range(1, most + 1):
        for ordinal in choice.ranked[:most]:
            for near in (ordinal + distance, ordinal - distance):
                if len(found) < most and 0 <= near < frames and near not in taken:
                    found[near] = None
        if len(found) >= most:
            break
    return sorted(found)


def how_many(cost: np.ndarray, choice: Choice) -> int:
    """How many frames a ranking must name so that the budget cannot be left unused for want of names."""
    cheapest = max(int(cost.min()), 1)
    return min(len(cost), choice.left // cheapest + len(choice.recent))


def refuse_too_small(cost: np.ndarray, recent_frames: int, read_tokens: int) -> None:
    """A budget that holds not even the newest frame, which must be there, or no frame at all, answers nothing."""
    needed = 0 if len(cost) == 0 else int(cost[-1] if recent_frames else cost.min())
    if needed > read_tokens:
        raise UserError(
            f"read_tokens={read_tokens} is below one frame ({needed} tokens with its time tag); "
            "raise read_tokens or compress frames more"
        )
