"""The role of a resolution: which frames an answer reads, and how much of each, within one budget.

A ratio of r leaves a frame at most one r-th of its visual tokens (`encoders/compression/`). Knows
counts, ranks, segments and ages of frames; no files, and of a question only its words as tensors.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from torch import Tensor

from encoders.schema import VisualTokens


@dataclass(frozen=True, slots=True)
class Candidates:
    """Frames that an answer may read, by their places: numbers 0 to n - 1 in time order."""

    tokens: np.ndarray  # [n] int64 stored tokens of each frame
    ranking: Sequence[int]  # places, best first, none twice; others are not read
    segments: np.ndarray  # [n] int64: the number of each frame's segment, equal within one alone
    ages: np.ndarray  # [n] float64 seconds to the newest frame of its video
    # how many of the first ranked frames were cited by earlier rounds, the newest round first
    kept: int = 0


class Resolution(Protocol):
    """Divides a budget of visual tokens among frames."""

    @property
    def newest(self) -> int:
        """The ratio of the newest frames, which every answer reads first."""
        ...

    @property
    def coarsest(self) -> int:
        """The largest ratio that it gives."""
        ...

    @property
    def is_whole(self) -> bool:
        """Whether every frame is read as it is stored: then the ranking alone decides."""
        ...

    def ratios(self, frames: Candidates, budget: int) -> dict[int, int]:
        """Place -> ratio of each frame that is read. Their `pooled_counts` add up to `budget` at
        most."""
        ...


@runtime_checkable
class WordResolution(Resolution, Protocol):
    """A resolution whose frames depend on the words of a question."""

    def read(self, frame: VisualTokens, ratio: int, words: Tensor) -> VisualTokens:
        """One stored frame (T = 1) at a ratio above 1, with `pooled_counts` tokens. words: [n, D]
        of the question in the language model's embedding space."""
        ...
