"""Every frame at one ratio."""

from dataclasses import dataclass

from memory.resolution.allocation import Allocation, check_ratio
from memory.resolution.schema import Candidates


@dataclass(frozen=True)
class UniformResolution:
    """The best frames that fit, each with a `ratio`-th of its tokens (Oryx, arXiv 2409.12961).

    A ratio of 1 reads frames as they are stored. r > 1 reads up to r times as many in the same
    budget.
    """

    ratio: int = 1

    def __post_init__(self) -> None:
        check_ratio("ratio", self.ratio)

    @property
    def newest(self) -> int:
        return self.ratio

    @property
    def coarsest(self) -> int:
        return self.ratio

    @property
    def is_whole(self) -> bool:
        return self.ratio == 1

    def ratios(self, frames: Candidates, budget: int) -> dict[int, int]:
        read = Allocation(frames.tokens, budget)
        for place in frames.ranking:
            read.take(place, self.ratio)
        return read.ratios
