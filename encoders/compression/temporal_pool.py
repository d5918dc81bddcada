"""Means over time."""

from dataclasses import dataclass, replace

import torch

from encoders.compression.staggered_places import check_ratio, staggered_places
from encoders.compressors import token_grid
from encoders.schema import VisualTokens


@dataclass(frozen=True)
class TemporalPool:
    """Each token the mean of its place in the last `ratio` frames, and every place once in `ratio`
    frames: the temporal pooling of STORM (arXiv 2503.04130), without its temporal encoder.

    STORM pools `ratio` frames into one. Here every frame stays, for search and citations, with
    floor(m / ratio) or ceil(m / ratio) of its m places, which move on by one from frame to frame.
    A mean has the time of its newest frame, so a question sees nothing from later on. The first
    frames of a segment have fewer before them: a segment can be read without its neighbors. A ratio
    of 1 changes nothing; a still picture keeps its tokens. ratio * N * D additions.

    ValueError where frames do not fill a grid.
    """

    ratio: int = 4

    def __post_init__(self) -> None:
        check_ratio(self.ratio)

    def __call__(self, visual: VisualTokens) -> VisualTokens:
        if self.ratio == 1:
            return visual
        token_grid(visual)
        frames = visual.tokens.float().reshape(len(visual.times), -1, visual.tokens.shape[1])
        means = torch.stack(
            [frames[max(0, t + 1 - self.ratio) : t + 1].mean(0) for t in range(len(frames))]
        )  # [T, m, D]
        tokens = means.flatten(0, 1).to(visual.tokens.dtype)
        return replace(visual, tokens=tokens).keep(staggered_places(visual, self.ratio))
