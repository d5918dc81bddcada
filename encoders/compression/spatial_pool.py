"""Every frame averaged to a share of its tokens."""

import math
from dataclasses import dataclass

from encoders.compression.frame_pooling import pooled_frame
from encoders.compression.staggered_places import check_ratio
from encoders.schema import VisualTokens, join_tokens


@dataclass(frozen=True)
class SpatialPool:
    """The means of ceil(m / ratio) cells of each frame of m tokens: the spatial pooling of STORM
    (arXiv 2503.04130), without its temporal encoder.

    Works for any grid, and for frames that lost tokens (`pooled_frame`). A ratio of 1 changes
    nothing.
    """

    ratio: int = 4

    def __post_init__(self) -> None:
        check_ratio(self.ratio)

    def __call__(self, visual: VisualTokens) -> VisualTokens:
        if self.ratio == 1:
            return visual
        frames = (visual.frames(t, t + 1) for t in range(len(visual.times)))
        return join_tokens(
            [pooled_frame(frame, math.ceil(len(frame.tokens) / self.ratio)) for frame in frames]
        )
