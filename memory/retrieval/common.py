"""Shared by all retrievers: building hits, and checks of their input. Knows no search method."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from encoders.errors import UserError
from memory.schema import Hits, SegmentIndex, Stretch

# question text -> [n, L, Hq, Dh]: the queries of its tokens before rotary embedding
Queries = Callable[[str], Tensor]


def hits(
    places: Iterable[int] | np.ndarray,
    scores: Iterable[float] | np.ndarray,
    stretches: Sequence[Stretch] = (),
) -> Hits:
    """Hits from plain numbers. stretches: that were searched."""
    frames = torch.as_tensor(np.array(places, dtype=np.int64))  # [k]
    return Hits(
        frames, torch.as_tensor(np.array(scores, dtype=np.float32)), stretches=tuple(stretches)
    )


def refuse_unknown(
    stretches: Sequence[Stretch], frame_count: Callable[[str], int]
) -> tuple[Stretch, ...]:
    """The stretches as a tuple. UserError for a video without frames, ValueError for more frames
    than were added. Every search begins here.
    frame_count: frames that the retriever has of a video."""
    for video_id, _, stop in stretches:
        count = frame_count(video_id)
        if count == 0:
            raise UserError(
                f"video {video_id} is not in this bank; encode it first with `reelbank ingest`"
            )
        if stop > count:
            raise ValueError(f"{stop} frames of video {video_id}, but only {count} were added")
    return tuple(stretches)


def is_next(segment: SegmentIndex, count: int) -> bool:
    """Whether a segment brings new frames. ValueError after a gap, where ordinals would be wrong.
    count: frames that the retriever has of the video."""
    if segment.first > count:
        raise ValueError(
            f"segment {segment.number} begins at frame {segment.first}, but only {count} were added"
        )
    return segment.first == count
