"""Every frame in one pass: what the model knows without any choice."""

from collections.abc import Sequence

from encoders.errors import UserError
from pipeline.controls.even_spread import spread
from pipeline.controls.frame_choice import FrameChoice, StoredFrame
from pipeline.controls.schema import Showing

SHOWINGS: tuple[Showing, ...] = ("film", "needles")


class WholeVideo(FrameChoice):
    """Reads all frames of a video that is short enough."""

    def __init__(self, *, most_tokens: int, showing: Showing) -> None:
        """most_tokens: visual tokens of the longest video that it is asked about. showing: "film",
        or "needles" for the needles of a film alone, one after another on grey. UserError on
        values that cannot be."""
        if most_tokens < 1:
            raise UserError(f"full_tokens={most_tokens} holds no frame; use 1 or more.")
        if showing not in SHOWINGS:
            raise UserError(f"control.showing={showing} is not known; use film or needles.")
        self.name = "full" if showing == "film" else "needle_only"
        self._most, self.showing = most_tokens, showing
        self.most_tokens = most_tokens if showing == "film" else None

    def choose(
        self, frames: Sequence[StoredFrame], interval: float, budget: int
    ) -> Sequence[StoredFrame]:
        budget = max(budget, self._most)
        return frames if sum(frame.cost for frame in frames) <= budget else spread(frames, budget)
