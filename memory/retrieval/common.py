"""Shared by all retrievers: building hits, and checks of their input. Knows no search method."""

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor

from encoders.errors import UserError
from memory.schema import Hits, Question, SegmentIndex

Queries = Callable[[str], Tensor]  # question text -> [L, H, Dh], query heads of a group summed


def hits(ordinals: Iterable[int] | np.ndarray, scores: Iterable[float] | np.ndarray) -> Hits:
    """Hits from plain numbers."""
    frames = torch.as_tensor(np.array(ordinals, dtype=np.int64))  # [k]
    return Hits(frames, torch.as_tensor(np.array(scores, dtype=np.float32)))


def refuse_unknown(question: Question, count: int, visible: int) -> None:
    """UserError for a video without frames, ValueError for more visible frames than were added.
    Every search begins here.
    count: frames that the retriever has of the video."""
    if count == 0:
        raise UserError(
            f"video {question.video_id} is not in this bank; encode it first with `reelbank ingest`"
        )
    if visible > count:
        raise ValueError(
            f"{visible} visible frames of video {question.video_id}, but only {count} were added"
        )


def is_next(segment: SegmentIndex, count: int) -> bool:
    """Whether a segment brings new frames. ValueError after a gap, where ordinals would be wrong.
    count: frames that the retriever has of the video."""
    if segment.first > count:
        raise ValueError(
            f"segment {segment.number} begins at frame {segment.first}, but only {count} were added"
        )
    return segment.first == count
