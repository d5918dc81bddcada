"""Frames spread evenly over the video: what benchmarks do with models that have no memory."""

from collections.abc import Sequence

import numpy as np

from pipeline.controls.frame_choice import FrameChoice, StoredFrame


class EvenSpread(FrameChoice):
    """As many frames as `read_tokens` holds, from the first one to the last one."""

    name = "uniform"

    def choose(
        self, frames: Sequence[StoredFrame], interval: float, budget: int
    ) -> Sequence[StoredFrame]:
        return spread(frames, budget)


def spread(frames: Sequence[StoredFrame], budget: int) -> Sequence[StoredFrame]:
    """As many of these frames as the budget holds, at even distances; at least the first one."""
    least = min(max(frame.cost, 1) for frame in frames)
    for count in range(min(len(frames), max(budget // least, 1)), 1, -1):
        places = np.linspace(0, len(frames) - 1, count).round().astype(int)
        chosen = [frames[place] for place in places]
        if sum(frame.cost for frame in chosen) <= budget:
            return chosen
    return frames[:1]
