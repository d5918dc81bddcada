"""What all resolutions share: a budget that frames are taken from, and checks of ratios."""

from collections.abc import Iterable

import numpy as np

from encoders.compression.frame_pooling import MOST_RATIO, pooled_counts


class Allocation:
    """Ratios of frames within a budget of visual tokens."""

    def __init__(self, tokens: np.ndarray, budget: int) -> None:
        """tokens: [n] stored tokens of each frame."""
        self.ratios: dict[int, int] = {}  # place -> ratio
        self.free = budget
        self._tokens = tokens

    def cost(self, place: int, ratio: int) -> int:
        """Visual tokens of a frame at a ratio."""
        return int(pooled_counts(self._tokens[place], ratio))

    def take(self, place: int, ratio: int, reserve: int = 0) -> bool:
        """Read a frame at this ratio, if that leaves `reserve` tokens of the budget. Says whether
        it does. A frame that is read already changes its ratio."""
        before = self.cost(place, self.ratios[place]) if place in self.ratios else 0
        more = self.cost(place, ratio) - before
        if more > self.free - reserve:
            return False
        self.ratios[place] = ratio
        self.free -= more
        return True

    def refine(self, order: Iterable[int], reserve: int = 0) -> None:
        """Spend what is left, beyond `reserve` tokens: each frame in this order gets the finest
        ratio that still fits."""
        for place in order:
            if self.free <= reserve:
                return
            ratio = self.ratios.get(place, 1)
            any(self.take(place, finer, reserve) for finer in range(1, ratio))


def all_whole(tokens: np.ndarray, places: Iterable[int], budget: int) -> dict[int, int] | None:
    """Every frame as it is stored, if all of them fit; else None. tokens: [n] of each frame."""
    whole = dict.fromkeys(places, 1)
    return whole if int(tokens[list(whole)].sum()) <= budget else None


def check_ratio(name: str, ratio: int) -> None:
    """ValueError for a ratio that is not 1 to 16."""
    if not 1 <= ratio <= MOST_RATIO:
        raise ValueError(
            f"{name}={ratio}: a frame is read with all of its tokens (1) down to a sixteenth (16)"
        )


def check_share(name: str, share: float) -> None:
    """ValueError for a share of the budget that is not 0 to 1."""
    if not 0 <= share <= 1:
        raise ValueError(f"{name}={share} is no share of the budget; use a value from 0 to 1")
