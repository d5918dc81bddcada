"""The newest frames alone: the bar for any memory.

SimpleStream (arXiv 2604.02317): the last four frames into a recent model beat every streaming
memory that it compares. A memory that does not beat this adds nothing.
"""

from collections.abc import Sequence

from encoders.errors import UserError
from pipeline.controls.frame_choice import FrameChoice, StoredFrame


class Newest(FrameChoice):
    """The last frames before the moment of the question."""

    def __init__(self, *, frames: int | None) -> None:
        """frames: how many; None: as many as `read_tokens` holds. UserError on less than 1."""
        if frames is not None and frames < 1:
            raise UserError(f"control.frames={frames} reads nothing; use 1 or more.")
        self.name = "window" if frames is None else f"last{frames}"
        self._frames = frames

    def choose(
        self, frames: Sequence[StoredFrame], interval: float, budget: int
    ) -> Sequence[StoredFrame]:
        if self._frames is not None:
            return frames[-self._frames :]
        count = 0
        for frame in reversed(frames):
            budget -= frame.cost
            if budget < 0:
                break
            count += 1
        return frames[-max(count, 1) :]
