"""A few frames whole, many at a low resolution."""

from dataclasses import dataclass

from encoders.compression.frame_pooling import pooled_counts
from memory.resolution.allocation import Allocation, all_whole, check_ratio, check_share
from memory.resolution.schema import Candidates


@dataclass(frozen=True)
class HighLow:
    """The best frames whole, and the next best ones with a `ratio`-th of their tokens, after the
    hybrid resolution of GIRAFFE (arXiv 2412.12735).

    Of a budget B, whole frames get (1 - low_share) B and low ones the rest. For T frames of m
    tokens that all fit low, that is k = (B - T m / r) / (m - m / r) whole ones. What is left makes
    low frames finer, the best first. If all frames fit whole, all are read whole.
    """

    ratio: int = 16
    low_share: float = 0.25
    newest: int = 1

    def __post_init__(self) -> None:
        check_ratio("ratio", self.ratio)
        check_ratio("newest", self.newest)
        check_share("low_share", self.low_share)

    @property
    def coarsest(self) -> int:
        return self.ratio

    @property
    def is_whole(self) -> bool:
        return self.ratio == self.newest == 1

    def ratios(self, frames: Candidates, budget: int) -> dict[int, int]:
        whole = all_whole(frames.tokens, frames.ranking, budget)
        if whole is not None:
            return whole
        read = Allocation(frames.tokens, budget)
        low = min(
            int(self.low_share * budget),
            int(pooled_counts(frames.tokens[list(frames.ranking)], self.ratio).sum()),
        )
        for place in frames.ranking:
            if not read.take(place, 1, reserve=low):
                break
        for place in frames.ranking:
            if place not in read.ratios:
                read.take(place, self.ratio)
        read.refine(frames.ranking)
        return read.ratios
