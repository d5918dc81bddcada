"""The frames of a stream that have arrived and are in no segment yet. Shows them before their
segment is cut.

Stands between a source and a segmenter; knows no model and no bank. A segmenter takes frames and
yields segments later. The frames that it has taken and not yielded are the open segment, for every
kind of segmenter.
"""

from collections import deque
from collections.abc import Callable, Iterator

import numpy as np

from encoders.schema import Frames, join_frames


class OpenSegment:
    """The same batches; the open segment is shown on the way."""

    def __init__(
        self,
        batches: Iterator[Frames],
        show: Callable[[Frames], None],
        *,
        has_time: Callable[[], bool],
        after: float = 0.0,
        patch: int = 1,
    ) -> None:
        """show: gets all frames of the open segment each time there are more, if `has_time()`.
        after: seconds; earlier frames are in segments already. patch: sampled frames in a temporal
        patch; only whole patches are shown."""
        self._batches, self._show, self._has_time = batches, show, has_time
        self._after, self._patch = after, patch
        self._open: deque[Frames] = deque()
        self.cuts = 0  # segments so far

    def __iter__(self) -> Iterator[Frames]:
        for batch in self._batches:
            self._open.append(
                batch.part(int(np.searchsorted(batch.times, self._after)), len(batch))
            )
            yield batch
            # the segmenter asks for more, so it has cut what it could
            count = sum(map(len, self._open)) // self._patch * self._patch
            if count and self._has_time():
                self._show(join_frames(self._open).part(0, count))

    def cut(self, segment: Frames) -> None:
        """Remove these frames, the first of the open segment: they are in a segment now."""
        self.cuts += 1
        left = len(segment)
        while left:
            first = self._open.popleft()
            if len(first) > left:
                self._open.appendleft(first.part(left, len(first)))
            left -= min(left, len(first))


__all__ = ["OpenSegment"]
