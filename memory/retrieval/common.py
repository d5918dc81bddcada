"""What the retrievers share: empty and made hits, and the checks on what they are given. Knows no way of searching."""

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor

from encoders.errors import UserError
from memory.schema import Hits, Question, SegmentIndex

Queries = Callable[[str], Tensor]  # question text -> [L, H * Dh], heads of a group summed


def hits(ordinals: Iterable[int] | np.ndarray, scores: Iterable[float] | np.ndarray) -> Hits:
    """A record out of plain numbers."""
    frames = torch.as_tensor(np.array(ordinals, dtype=np.int64))  # [k]
    return Hits(frames, torch.as_tensor(np.array(scores, dtype=np.float32)))


def refuse_unknown(question: Question, known: int, visible: int) -> None:
    """Every search begins here."""
    if known == 0:
        raise UserError(
            f"video {question.video_id} is not in this bank; encode it first with `reelbank ingest`"
        )
    if visible > known:
        raise ValueError(
            f"{visible} visible frames of video {question.video_id}, but only {known} were taken in"
        )


def is_next(segment: SegmentIndex, known: int) -> bool:
    """Whether a segment brings new frames; ordinals would be wrong after a gap."""
    if segment.first > known:
        raise ValueError(
            f"segment {segment.number} begins at frame {segment.first}, but only {known} were taken in"
        )
    return segment.first == known
