"""The frames of a stream that have come and are in no segment yet, for whoever wants to see them before it is cut.

Stands between a source and a segmenter; knows no model and no bank. A segmenter takes frames and gives segments out later: what
it has taken and not given out is the open segment, whatever kind of segmenter it is.
"""

from collections import deque
from collections.abc import Callable, Iterator

import numpy as np

from encoders.schema import Frames, join


class OpenSegment:
    """The same batches, looked at on the way."""

    def __init__(
        self,
        batches: Iterator[Frames],
        look: Callable[[Frames], None],
        *,
        has_time: Callable[[], bool],
        after: float = 0.0,
        patch: int = 1,
    ) -> None:
        """look: gets all frames of the open segment, each time there are more and `has_time` says that nothing else is to be
        done. after: frames before this second are in segments already. patch: sampled frames in a temporal patch; only whole
        ones are looked at."""
        self._batches, self._look, self._has_time = batches, look, has_time
        self._after, self._patch = after, patch
        self._held: deque[Frames] = deque()
        self.cuts = 0  # segments so far

    def __iter__(self) -> Iterator[Frames]:
        for batch in self._batches:
            self._held.append(
                batch.part(int(np.searchsorted(batch.times, self._after)), len(batch))
            )
            yield batch
            # here the segmenter asks for more: what was to be cut is cut
            count = sum(map(len, self._held)) // self._patch * self._patch
            if count and self._has_time():
                self._look(join(self._held).part(0, count))

    def cut(self, segment: Frames) -> None:
        """These frames, the first of the open segment, are in a segment now."""
        self.cuts += 1
        left = len(segment)
        while left:
            first = self._held.popleft()
            if len(first) > left:
                self._held.appendleft(first.part(left, len(first)))
            left -= min(left, len(first))


__all__ = ["OpenSegment"]
