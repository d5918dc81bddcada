"""Frames of earlier rounds of a conversation at a lower resolution, the older the lower."""

from dataclasses import dataclass

from memory.resolution.allocation import Allocation, check_ratio, check_share
from memory.resolution.schema import Candidates


@dataclass(frozen=True)
class RoundDecay:
    """Frames that earlier rounds cited take at most `history_share` of the budget; the question's
    own frames are read whole.

    After the round-decayed compression of StreamBridge (arXiv 2505.05467): while the history is too
    large, its oldest frame doubles its ratio, up to `coarsest`; then the next oldest does, down to
    the second. If that is not enough, the oldest frames go. The newest stays whole where it fits.
    So tokens of equally large frames never rise with the age of a round. Without a history this is
    `uniform`.
    """

    history_share: float = 0.25
    coarsest: int = 16
    newest: int = 1

    def __post_init__(self) -> None:
        check_share("history_share", self.history_share)
        check_ratio("coarsest", self.coarsest)
        check_ratio("newest", self.newest)

    @property
    def is_whole(self) -> bool:
        return False

    def ratios(self, frames: Candidates, budget: int) -> dict[int, int]:
        read = Allocation(frames.tokens, budget)
        limit = int(self.history_share * budget)
        history = dict.fromkeys(frames.ranking[: frames.kept], 1)  # the newest round first
        for place in reversed(list(history)[1:]):
            while self._tokens(read, history) > limit and history[place] < self.coarsest:
                history[place] = min(2 * history[place], self.coarsest)
        while history and self._tokens(read, history) > limit:
            history.popitem()
        for place, ratio in history.items():
            read.take(place, ratio)
        for place in frames.ranking[frames.kept :]:
            read.take(place, 1)
        if not read.ratios:  # the budget is below one whole frame
            for place in frames.ranking:
                read.take(place, self.coarsest)
        return read.ratios

    @staticmethod
    def _tokens(read: Allocation, history: dict[int, int]) -> int:
        return sum(read.cost(place, ratio) for place, ratio in history.items())
