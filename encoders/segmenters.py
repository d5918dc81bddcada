"""Cut a stream of frames into segments: by a time grid, or where the scene changes.

Knows frames, times and (for scenes) unit rows of an embedder; nothing of files, models or banks.

Resuming. `segments(batches, after)` yields only segments that start at `after` or later; earlier frames are looked at
and dropped. `look_back` says how many frames before `after` must be among the batches (all, if the video has fewer) so
that every cut comes out as in one whole pass. It works without saved state as a cut depends on nothing but the start
of its own segment and the last `look_back` frames. `after` must be the end of a segment of such a pass.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from encoders.schema import FrameEmbedder, Frames, Segmenter, join

_EPS_S = 1e-6  # 0.3 / 0.1 is below 3


@dataclass(frozen=True)
class FixedWindow:
    """Segment k holds the frames of [k * seconds, (k + 1) * seconds); a window without frames gives no segment."""

    seconds: float = 8.0

    def __post_init__(self) -> None:
        if not self.seconds > 0:
            raise ValueError(
                f"seconds={self.seconds}: a window must last longer than 0 s; 8 is usual"
            )

    @property
    def look_back(self) -> int:
        """Frames before the resume point that a cut depends on."""
        return 0

    def segments(self, batches: Iterator[Frames], after: float = 0.0) -> Iterator[Frames]:
        """The frames of each segment that starts at `after` or later."""
        held: list[Frames] = []
        window = -1
        for batch in batches:
            batch = batch.part(int(np.searchsorted(batch.times, after)), len(batch))
            windows = np.floor((batch.times + _EPS_S) / self.seconds).astype(int)  # [T]
            edges = [0, *(np.flatnonzero(np.diff(windows)) + 1).tolist(), len(batch)]
            for first, stop in pairwise(edges):
                if first == stop:
                    continue
                if held and windows[first] != window:
                    yield join(held)
                    held = []
                held.append(batch.part(first, stop))
                window = windows[first]
        if held:
            yield join(held)


@dataclass(frozen=True)
class SceneCuts:
    """A segment ends where two neighbouring frames are far less alike than the frames around them (SceneTilling of
    VideoLLaMB, arXiv 2409.01071, made causal).

    lag: frames after a cut that are looked at before it is made.
    memory: similarities of neighbours that a cut is judged against; also the `look_back`.
    warm_up: similarities at the start of a video at which no scene is cut: there is nothing to judge them by.
    min_seconds, max_seconds: a scene cut never makes a shorter segment; a longer one is cut anyway.
    spread, floor: a cut is deeper than the mean depth by `spread` standard deviations, and than `floor`.
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
                f"memory={self.memory} does not cover warm_up={self.warm_up} (1 or more) and lag={self.lag}; use 128, 16 and 2"
            )
        if not 0 <= self.min_seconds < self.max_seconds:
            raise ValueError(
                f"min_seconds={self.min_seconds} must be 0 or more and below max_seconds={self.max_seconds}; use 2 and 32"
            )

    @property
    def look_back(self) -> int:
        """Frames before the resume point that a cut depends on."""
        return self.memory

    def segments(self, batches: Iterator[Frames], after: float = 0.0) -> Iterator[Frames]:
        """The frames of each segment that starts at `after` or later."""
        # similarity of each frame to the one before it, newest last
        alike: deque[float] = deque(maxlen=self.memory)
        row: np.ndarray | None = None  # [E] embedding of the newest frame
        # frames of the open segment, one each: few, and a cut falls anywhere
        held: list[Frames] = []
        for batch in batches:
            rows = self.embedder.embed_frames(batch).double().cpu().numpy()  # [T, E]
            for number in range(len(batch)):
                if row is not None:
                    alike.append(float(row @ rows[number]))
                row = rows[number]
                frame = batch.part(number, number + 1)
                if frame.times[0] < after:
                    continue
                held.append(frame)
                if self._scene_ends(alike, held):
                    yield join(held[: -1 - self.lag])
                    held = held[-1 - self.lag :]
                if held[-1].times[0] - held[0].times[0] >= self.max_seconds:
                    yield join(held[:-1])
                    held = held[-1:]
        if held:
            yield join(held)

    def _scene_ends(self, alike: deque[float], held: list[Frames]) -> bool:
        """Whether the open segment ends `lag` frames before the newest one."""
        first = len(held) - 1 - self.lag  # where in `held` the next segment would begin
        if first < 1 or held[first].times[0] - held[0].times[0] < self.min_seconds:
            return False
        depth = depths(np.array(alike))[: len(alike) - self.lag]  # the candidate's comes last
        if len(depth) <= self.warm_up:
            return False
        return bool(depth[-1] >= max(depth.mean() + self.spread * depth.std(ddof=1), self.floor))


@dataclass(frozen=True)
class WholePatches:
    """Another segmenter's cuts, moved so that no temporal patch (`size` sampled frames, counted from the video's beginning)
    is cut: the segmenter sees the first frame of each patch and every cut takes whole patches. A video's last patch may be
    shorter. Resumed passes must begin with the first frame of a patch, `look_back` patches back."""

    inner: Segmenter
    size: int

    @property
    def look_back(self) -> int:
        """Patches before the resume point that a cut depends on."""
        return self.inner.look_back

    def segments(self, batches: Iterator[Frames], after: float = 0.0) -> Iterator[Frames]:
        """The frames of each segment that starts at `after` or later."""
        # patches that the segmenter has seen and not yet put into a segment
        waiting: deque[Frames] = deque()

        def first_frames() -> Iterator[Frames]:
            for patch in _patches(batches, self.size):
                waiting.append(patch)
                yield patch.part(0, 1)

        for firsts in self.inner.segments(first_frames(), after):
            while waiting[0].times[0] < firsts.times[0]:  # looked at only, before `after`
                waiting.popleft()
            yield join([waiting.popleft() for _ in range(len(firsts))])


def _patches(batches: Iterator[Frames], size: int) -> Iterator[Frames]:
    """Runs of `size` frames, the last one shorter when the frames do not fill it."""
    held: list[Frames] = []
    for batch in batches:
        for number in range(len(batch)):
            held.append(batch.part(number, number + 1))
            if len(held) == size:
                yield join(held)
                held = []
    if held:
        yield join(held)


def depths(alike: np.ndarray) -> np.ndarray:
    """How deep each similarity lies below the tops of the slopes to its left and right: [S] of [S]."""
    left, right = alike.copy(), alike.copy()
    for i in range(1, len(alike)):
        if alike[i - 1] >= alike[i]:
            left[i] = left[i - 1]
    for i in range(len(alike) - 2, -1, -1):
        if alike[i + 1] >= alike[i]:
            right[i] = right[i + 1]
    deep: np.ndarray = left + right - 2 * alike
    return deep
