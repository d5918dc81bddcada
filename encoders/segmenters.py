"""Cut a stream of frames into segments: by a time grid, or where the scene changes.

Knows frames, times and (for scenes) unit rows of an embedder; nothing of files, models or banks.

Resuming. `segments(batches, after)` yields only segments that start at `after` or later; earlier
frames are examined and dropped. `look_back` is the number of frames before `after` that the batches
must contain (all, if the video has fewer), so that every cut equals that of one whole pass. This
needs no saved state, because a cut depends only on the start of its own segment and the last
`look_back` frames. `after` must be the end of a segment of such a pass.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from encoders.schema import FrameEmbedder, Frames, Segmenter, join_frames

_EPS_S = 1e-6  # 0.3 / 0.1 is below 3


@dataclass(frozen=True)
class FixedWindow:
    """Segment k holds the frames of [k * seconds, (k + 1) * seconds); a window without frames gives
    no segment.
    """

    seconds: float = 8.0

    def __post_init__(self) -> None:
        if not self.seconds > 0:
            raise ValueError(
                f"seconds={self.seconds}: a window must last longer than 0 s; 8 is usual"
            )

    @property
    def look_back(self) -> int:
        """Number of frames before the resume point that a cut depends on."""
        return 0

    def segments(self, batches: Iterator[Frames], after: float = 0.0) -> Iterator[Frames]:
        """The frames of each segment that starts at `after` or later."""
        pending: list[Frames] = []
        window = -1
        for batch in batches:
            batch = batch.part(int(np.searchsorted(batch.times, after)), len(batch))
            windows = np.floor((batch.times + _EPS_S) / self.seconds).astype(int)  # [T]
            edges = [0, *(np.flatnonzero(np.diff(windows)) + 1).tolist(), len(batch)]
            for first, stop in pairwise(edges):
                if first == stop:
                    continue
                if pending and windows[first] != window:
                    yield join_frames(pending)
                    pending = []
                pending.append(batch.part(first, stop))
                window = windows[first]
        if pending:
            yield join_frames(pending)


@dataclass(frozen=True)
class SceneCuts:
    """A segment ends where two neighboring frames are far less similar than the frames around them
    (SceneTilling of VideoLLaMB, arXiv 2409.01071, made causal).

    lag: number of frames after a cut that are examined before the cut is made.
    memory: number of similarities of neighbors that a cut is judged against; also the `look_back`.
    warm_up: number of similarities at the start of a video during which no scene is cut, because
    there is nothing to compare with.
    min_seconds, max_seconds: a scene cut never makes a shorter segment; a longer segment is always
    cut.
    spread, floor: a cut is deeper than the mean depth by `spread` standard deviations, and deeper
    than `floor`.
    """

    embedder: FrameEmbedder
    lag: int = 2
    memory: int = 128
    warm_up: int = 16
    min_seconds: float = 2.0
    max_seconds: float = 32.0
    spread: float = 1.0
    floor: float = 0.05

    def __post_init__(self) -> None:
        if self.lag < 1:
            raise ValueError(
                f"lag={self.lag}: a cut is seen by the frames after it; use 1 or more, 2 is usual"
            )
        if self.warm_up < 1 or self.memory < self.warm_up + self.lag + 1:
            raise ValueError(
                f"memory={self.memory} does not cover warm_up={self.warm_up} (1 or more) and "
                f"lag={self.lag}; use 128, 16 and 2"
            )
        if not 0 <= self.min_seconds < self.max_seconds:
            raise ValueError(
                f"min_seconds={self.min_seconds} must be 0 or more and below "
                f"max_seconds={self.max_seconds}; use 2 and 32"
            )

    @property
    def look_back(self) -> int:
        """Number of frames before the resume point that a cut depends on."""
        return self.memory

    def segments(self, batches: Iterator[Frames], after: float = 0.0) -> Iterator[Frames]:
        """The frames of each segment that starts at `after` or later."""
        # similarity of each frame to the one before it, newest last
        similarities: deque[float] = deque(maxlen=self.memory)
        row: np.ndarray | None = None  # [E] embedding of the newest frame
        # frames of the open segment, one record each: they are few, and a cut can be anywhere
        pending: list[Frames] = []
        for batch in batches:
            rows = self.embedder.embed_frames(batch).double().cpu().numpy()  # [T, E]
            for number in range(len(batch)):
                if row is not None:
                    similarities.append(float(row @ rows[number]))
                row = rows[number]
                frame = batch.part(number, number + 1)
                if frame.times[0] < after:
                    continue
                pending.append(frame)
                if self._scene_ends(similarities, pending):
                    yield join_frames(pending[: -1 - self.lag])
                    pending = pending[-1 - self.lag :]
                if pending[-1].times[0] - pending[0].times[0] >= self.max_seconds:
                    yield join_frames(pending[:-1])
                    pending = pending[-1:]
        if pending:
            yield join_frames(pending)

    def _scene_ends(self, similarities: deque[float], pending: list[Frames]) -> bool:
        """True if the open segment ends `lag` frames before the newest frame."""
        first = len(pending) - 1 - self.lag  # start of the next segment within `pending`
        if first < 1 or pending[first].times[0] - pending[0].times[0] < self.min_seconds:
            return False
        depth = depths(np.array(similarities))[
            : len(similarities) - self.lag
        ]  # the candidate's comes last
        if len(depth) <= self.warm_up:
            return False
        return bool(depth[-1] >= max(depth.mean() + self.spread * depth.std(ddof=1), self.floor))


@dataclass(frozen=True)
class WholePatches:
    """Moves another segmenter's cuts so that no temporal patch (`size` sampled frames, counted from
    the beginning of the video) is cut. The inner segmenter receives the first frame of each patch,
    and every cut takes whole patches. The last patch of a video may be shorter. A resumed pass must
    begin with the first frame of a patch, `look_back` patches back.
    """

    inner: Segmenter
    size: int

    @property
    def look_back(self) -> int:
        """Number of patches before the resume point that a cut depends on."""
        return self.inner.look_back

    def segments(self, batches: Iterator[Frames], after: float = 0.0) -> Iterator[Frames]:
        """The frames of each segment that starts at `after` or later."""
        # patches that the inner segmenter has received and not yet put into a segment
        waiting: deque[Frames] = deque()

        def first_frames() -> Iterator[Frames]:
            for patch in _patches(batches, self.size):
                waiting.append(patch)
                yield patch.part(0, 1)

        for firsts in self.inner.segments(first_frames(), after):
            while waiting[0].times[0] < firsts.times[0]:  # examined only, before `after`
                waiting.popleft()
            yield join_frames([waiting.popleft() for _ in range(len(firsts))])


def _patches(batches: Iterator[Frames], size: int) -> Iterator[Frames]:
    """Runs of `size` frames; the last one is shorter if the frames do not fill it."""
    pending: list[Frames] = []
    for batch in batches:
        for number in range(len(batch)):
            pending.append(batch.part(number, number + 1))
            if len(pending) == size:
                yield join_frames(pending)
                pending = []
    if pending:
        yield join_frames(pending)


def depths(similarities: np.ndarray) -> np.ndarray:
    """[S] depth of each similarity below the peaks of the slopes on its left and right.
    similarities: [S].
    """
    left, right = similarities.copy(), similarities.copy()
    for i in range(1, len(similarities)):
        if similarities[i - 1] >= similarities[i]:
            left[i] = left[i - 1]
    for i in range(len(similarities) - 2, -1, -1):
        if similarities[i + 1] >= similarities[i]:
            right[i] = right[i + 1]
    deep: np.ndarray = left + right - 2 * similarities
    return deep
