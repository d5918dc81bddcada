"""The frames of stored segments, decoded again from their film. Knows sources and rows of the
catalog; no model.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np

from encoders.schema import Frames, FrameSource, join_frames
from memory.storage.catalog import SegmentRow


def neighbors(rows: Sequence[SegmentRow]) -> Iterator[list[SegmentRow]]:
    """Runs of segments with successive numbers."""
    for _, run in groupby(enumerate(rows), lambda pair: pair[1].number - pair[0]):
        yield [row for _, row in run]


def frames_of(
    source: FrameSource, rows: Sequence[SegmentRow]
) -> Iterator[tuple[SegmentRow, Frames]]:
    """The sampled frames of neighboring segments. A segment that the source gives no frame of is
    left out, and so are those behind it."""
    waiting = list(rows)
    parts: list[Frames] = []
    for batch in source.frames(rows[0].start):
        while waiting and len(batch):
            row = waiting[0]
            stop = int(np.searchsorted(batch.times, row.times[-1], side="right"))
            first = int(np.searchsorted(batch.times, row.start))
            if first < stop:
                parts.append(batch.part(first, stop))
            if stop == len(batch) and batch.times[-1] < row.times[-1]:
                break  # the segment goes on in the next batch
            batch = batch.part(stop, len(batch))
            waiting.pop(0)
            if parts:
                yield row, join_frames(parts)
            parts = []
        if not waiting:
            return
    if parts:
        yield waiting[0], join_frames(parts)


def patch_ends(times: np.ndarray, patch: int) -> np.ndarray:
    """The time of the last sampled frame of each temporal patch."""
    last = np.minimum(np.arange(patch - 1, len(times) + patch - 1, patch), len(times) - 1)
    ends: np.ndarray = times[last]
    return ends
