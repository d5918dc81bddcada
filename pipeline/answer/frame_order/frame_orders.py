"""In which order the frames of an answer are read. Knows numbers of frames and ranks alone.

Frames are in a prompt with their times, so no order hides when something was. Models attend most to
what is at the beginning and at the end of a context (Liu et al. 2023, arXiv 2307.03172).
"""

from collections.abc import Sequence
from typing import Protocol


class FrameOrder(Protocol):
    """Orders the frames of one video. is_time: they stay in time order."""

    is_time: bool

    def __call__(self, ranks: Sequence[int]) -> list[int]:
        """ranks: [n] of each frame in time order, 0 the best match -> numbers 0 to n - 1 in the
        order in which they are read. Frames with equal ranks stay in time order.
        """
        ...


class TimeOrder:
    """As in the film."""

    is_time = True

    def __call__(self, ranks: Sequence[int]) -> list[int]:
        return list(range(len(ranks)))


class ScoreOrder:
    """The best match last, next to the question."""

    is_time = False

    def __call__(self, ranks: Sequence[int]) -> list[int]:
        return sorted(range(len(ranks)), key=lambda number: -ranks[number])


class EdgesOrder:
    """The best matches at both edges: the best one last, the second one first, and so on. Frames
    that share the worst rank, such as those that were not ranked, stay in time order in the middle.
    """

    is_time = False

    def __call__(self, ranks: Sequence[int]) -> list[int]:
        worst = max(ranks, default=0)
        rest = [number for number, rank in enumerate(ranks) if rank == worst]
        middle = rest if len(rest) > 1 else []
        best = sorted(set(range(len(ranks))) - set(middle), key=lambda number: ranks[number])
        return best[1::2] + middle + best[0::2][::-1]
