"""Frames at one ratio, of whose tokens one depends on the question."""

import math
from dataclasses import dataclass

from torch import Tensor

from encoders.compression.context_token import with_context_token
from encoders.schema import VisualTokens
from memory.resolution.uniform_resolution import UniformResolution


@dataclass(frozen=True)
class ContextToken(UniformResolution):
    """The best frames that fit, each with a `ratio`-th of its tokens. One of them is a mean that
    the question weighs: the context token of LLaMA-VID (arXiv 2311.17043), without its training. A
    frame of 16 tokens at ratio 8 is its two tokens, content and context.

    beta: how sharply the question's words choose; 0: the context token is a plain mean.
    """

    ratio: int = 8
    beta: float = 20.0

    def __post_init__(self) -> None:
        UniformResolution.__post_init__(self)
        if not 0 <= self.beta < math.inf:
            raise ValueError(f"beta={self.beta} is no sharpness; use 0 or more, such as 20")

    def read(self, frame: VisualTokens, ratio: int, words: Tensor) -> VisualTokens:
        """One stored frame at a ratio above 1. words: [n, D] of the question."""
        count = max(1, len(frame.tokens) // ratio)
        if count == len(frame.tokens):
            return frame
        return with_context_token(frame, count, words, self.beta)
