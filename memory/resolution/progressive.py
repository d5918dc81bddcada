"""Coarser step by step: from the best or the newest frames to the others."""

from dataclasses import dataclass

from memory.resolution.allocation import Allocation, all_whole, check_ratio
from memory.resolution.schema import Candidates

RANK, AGE = "rank", "age"


@dataclass(frozen=True)
class Progressive:
    """Frames in steps of rising ratio 1, growth, growth^2, ... up to 16; each step gets the same
    part of the budget, so it holds `growth` times as many frames as the one before.

    After the progressive pooling of Visual Context Window Extension (arXiv 2409.20018), which keeps
    one frame of a group at a high resolution and pools the others. Tokens of equally large frames
    never rise along the order. What is left makes frames finer, the first ones first. If all frames
    fit whole, all are read whole.

    by: rank (best first) or age (newest first).
    """

    growth: int = 2
    by: str = RANK
    newest: int = 1

    def __post_init__(self) -> None:
        check_ratio("growth", self.growth)
        check_ratio("newest", self.newest)
        if self.by not in (RANK, AGE):
            raise ValueError(f"by={self.by} is not known; use {RANK} or {AGE}")

    @property
    def steps(self) -> list[int]:
        """The ratios, rising."""
        ratios = [1]
        while self.growth > 1 and ratios[-1] * self.growth <= 16:
            ratios.append(ratios[-1] * self.growth)
        return ratios

    @property
    def coarsest(self) -> int:
        return self.steps[-1]

    @property
    def is_whole(self) -> bool:
        return self.growth == self.newest == 1 and self.by == RANK

    def ratios(self, frames: Candidates, budget: int) -> dict[int, int]:
        whole = all_whole(frames.tokens, frames.ranking, budget)
        if whole is not None:
            return whole
        order = list(frames.ranking)
        if self.by == AGE:
            order.sort(key=lambda place: float(frames.ages[place]))
        read, steps = Allocation(frames.tokens, budget), self.steps
        waiting = iter(order)
        place = next(waiting, None)
        for number, ratio in enumerate(steps):
            reserve = budget * (len(steps) - 1 - number) // len(steps)
            while place is not None and read.take(place, ratio, reserve):
                place = next(waiting, None)
        for place in order:  # smaller ones, behind one that does not fit
            if place not in read.ratios:
                read.take(place, self.coarsest)
        read.refine(order)
        return read.ratios
