"""Perfect retrieval: the frames that show the answer, and their neighbours."""

from collections.abc import Sequence

from pipeline.answer.strategies.schema import AnswerStrategy
from pipeline.controls.even_spread import spread
from pipeline.controls.frame_choice import FrameChoice, StoredFrame
from pipeline.controls.schema import Spans


class Oracle(FrameChoice):
    """Asked where somebody wrote down where the answer shows."""

    name = "oracle"

    def __init__(self) -> None:
        self._clue: Spans = ()

    def strategy(self, clue: Spans, own: AnswerStrategy) -> AnswerStrategy | None:
        if not clue:
            return None
        informed = Oracle()
        informed._clue = clue
        return informed

    def choose(
        self, frames: Sequence[StoredFrame], interval: float, budget: int
    ) -> Sequence[StoredFrame]:
        """Of a clue that fills more than the budget, frames spread evenly over it; of one that lies
        between two frames or outside of the video, the frame nearest to it."""
        near = [frame for frame in frames if is_near(frame.time, self._clue, interval)]
        if not near:
            middle = sum(self._clue[0]) / 2
            near = [min(frames, key=lambda frame: abs(frame.time - middle))]
        return near if sum(frame.cost for frame in near) <= budget else spread(near, budget)


def is_near(time: float, clue: Spans, interval: float) -> bool:
    """Whether a frame shows a part of the clue, or is a neighbour of such a frame."""
    return any(start - interval <= time < end + interval for start, end in clue)
