"""A token budget for every segment, by its relevance."""

from dataclasses import dataclass

from encoders.compression.frame_pooling import pooled_counts
from memory.resolution.allocation import Allocation, all_whole, check_ratio, check_share
from memory.resolution.schema import Candidates


@dataclass(frozen=True)
class PerSegment:
    """Many tokens for the segments that fit the question, few for the others, after the routing and
    the FocusFast of SALOVA (arXiv 2411.16173).

    A segment ranks with its best frame. The first `focus` segments share 1 - context_share of the
    budget: segment i gets 1 / i of what the first gets. The others share the rest evenly. A segment
    reads all of its ranked frames at the finest ratio at which they fit its budget, or as many as
    fit at the coarsest; what is left makes its best frames finer, and then goes to the next one.
    SALOVA's router is trained; here the retriever ranks. If all frames fit whole, all are read
    whole.
    """

    focus: int = 5
    context_share: float = 0.2
    coarsest: int = 16
    newest: int = 1

    def __post_init__(self) -> None:
        if self.focus < 1:
            raise ValueError(f"focus={self.focus}: at least 1 segment is in focus")
        check_share("context_share", self.context_share)
        check_ratio("coarsest", self.coarsest)
        check_ratio("newest", self.newest)

    @property
    def is_whole(self) -> bool:
        return False

    def ratios(self, frames: Candidates, budget: int) -> dict[int, int]:
        whole = all_whole(frames.tokens, frames.ranking, budget)
        if whole is not None:
            return whole
        groups: dict[int, list[int]] = {}  # segments, the most relevant first -> places, best first
        for place in frames.ranking:
            groups.setdefault(int(frames.segments[place]), []).append(place)
        read, spent = Allocation(frames.tokens, budget), 0.0
        shares = self.shares(len(groups))
        for share, places in zip(shares, groups.values(), strict=True):
            spent += share
            reserve = budget - int(spent * budget)
            ratio = next(
                (
                    ratio
                    for ratio in range(1, self.coarsest)
                    if int(pooled_counts(frames.tokens[places], ratio).sum()) <= read.free - reserve
                ),
                self.coarsest,
            )
            for place in places:
                read.take(place, ratio, reserve)
            read.refine(places, reserve)
        for place in frames.ranking:  # no segment's own budget held these
            if place not in read.ratios:
                read.take(place, self.coarsest)
        read.refine(frames.ranking)
        return read.ratios

    def shares(self, segments: int) -> list[float]:
        """Shares of the budget, sum 1: of the most relevant segment first."""
        focus = min(self.focus, segments)
        others = segments - focus
        context = self.context_share if others else 0.0
        total = sum(1 / (i + 1) for i in range(focus))
        own = [(1 - context) / ((i + 1) * total) for i in range(focus)]
        return own + [context / max(others, 1)] * others
