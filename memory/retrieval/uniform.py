"""Frames spread evenly over the video: the baseline that ignores the question."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from encoders.schema import FrameEmbedder
from memory.retrieval.common import Queries, hits, is_next, refuse_unknown
from memory.schema import Hits, Question, SegmentIndex, Stretch
from memory.timeline import Timeline


class UniformRetriever:
    """Frames evenly spread over the visible parts of videos.

    For n frames it takes the middles of n equal stretches. They are ranked coarse to fine (halves,
    quarters, ...). So a small budget thins them out everywhere instead of cutting off the end of
    the video.
    Partners: accepted for the common convention, not used.
    """

    reads: frozenset[str] = frozenset()

    def __init__(
        self, *, embedder: FrameEmbedder | None = None, queries: Queries | None = None
    ) -> None:
        self._counts: Counter[str] = Counter()

    @property
    def nbytes(self) -> int:
        return 0

    def add(self, segment: SegmentIndex) -> None:
        if is_next(segment, self.frame_count(segment.video_id)):
            self._counts[segment.video_id] += len(segment)

    def search(self, question: Question, k: int, stretches: Sequence[Stretch]) -> Hits:
        stretches = refuse_unknown(stretches, self.frame_count)
        count = sum(map(len, stretches))
        k = min(k, count)
        order = _coarse_to_fine(k) if k else []
        return hits(
            [(2 * i + 1) * count // (2 * k) for i in order],
            [1 / (rank + 1) for rank in range(k)],
            stretches,
        )

    def frame_count(self, video_id: str) -> int:
        return self._counts[video_id]

    def load(self, folder: Path, video_id: str, timeline: Timeline) -> None:
        self._counts[video_id] = len(timeline)

    def save(self, folder: Path, video_id: str, timeline: Timeline) -> None:
        pass

    def forget(self, video_id: str) -> None:
        del self._counts[video_id]


def _coarse_to_fine(count: int) -> list[int]:
    """0..count-1 in bit-reversed order: every prefix is spread over the whole range."""
    bits = max(count - 1, 1).bit_length()
    order = (int(f"{i:0{bits}b}"[::-1], 2) for i in range(1 << bits))
    return [i for i in order if i < count]
