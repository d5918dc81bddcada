"""Every n-th token."""

from dataclasses import dataclass

from encoders.compression.staggered_places import check_ratio, staggered_places
from encoders.schema import VisualTokens


@dataclass(frozen=True)
class TokenSample:
    """Every `ratio`-th token of each frame, as it is, after the test-time sampling of STORM (arXiv
    2503.04130), which drops whole frames behind its temporal encoder.

    The places move on by one from frame to frame: a still picture is whole after `ratio` frames. A
    ratio of 1 changes nothing. No multiplications.
    """

    ratio: int = 4

    def __post_init__(self) -> None:
        check_ratio(self.ratio)

    def __call__(self, visual: VisualTokens) -> VisualTokens:
        return visual if self.ratio == 1 else visual.keep(staggered_places(visual, self.ratio))
