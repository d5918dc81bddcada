"""Several retrievers as one, by reciprocal rank fusion of their rankings.

Knows no scores of its parts, only their rankings.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path

from encoders.errors import UserError
from encoders.schema import FrameEmbedder
from memory.retrieval.common import Queries, hits
from memory.retrieval.fusion import K0, reciprocal_rank
from memory.schema import Hits, Question, Retriever, SegmentIndex, Stretch
from memory.timeline import Timeline


def fuse_frames(ranked: Hits, near: Sequence[int]) -> Hits:
    """Fuse a ranking with frames from another source. near: places in the stretches of `ranked`,
    best first; repeats are ignored."""
    fused = reciprocal_rank([ranked.places.tolist(), list(dict.fromkeys(near))])
    return _hits(fused, ranked.stretches)


def _hits(scores: Mapping[int, float], stretches: Sequence[Stretch]) -> Hits:
    return hits(list(scores), list(scores.values()), stretches)


class FusedRetriever:
    """Weighted reciprocal rank fusion: score = sum of weight / (k0 + rank), rank from 1
    (memory/retrieval/fusion.py).

    Raw scores of different retrievers are never compared: cosines and z-scores have no common
    scale.
    parts: name -> partial of a retriever, called here with the same partners.
    weights: name -> weight, 1 where absent.
    k0: how flat the weighting is; with 60, agreement of several parts beats one part's first place.
    Each part ranks max(4 k, 100) frames; a frame that a part does not rank gets nothing from it.
    """

    def __init__(
        self,
        parts: Mapping[str, Callable[..., Retriever]],
        weights: Mapping[str, float] | None = None,
        k0: float = K0,
        *,
        embedder: FrameEmbedder | None = None,
        queries: Queries | None = None,
    ) -> None:
        weights = weights or {}
        unknown = sorted(set(weights) - set(parts))
        if unknown or not parts or k0 < 0 or any(weight < 0 for weight in weights.values()):
            raise UserError(
                f"retriever=fused cannot use parts {sorted(parts)}, weights {dict(weights)}, "
                f"k0={k0}; "
                "give each weight the name of a part and no negative number"
            )
        self._parts = {
            name: part(embedder=embedder, queries=queries) for name, part in parts.items()
        }
        self._weights = {name: float(weights.get(name, 1.0)) for name in parts}
        self._k0 = k0
        self.reads = frozenset[str]().union(*(part.reads for part in self._parts.values()))

    @property
    def parts(self) -> Mapping[str, Retriever]:
        """By name."""
        return self._parts

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self._parts.values())

    def add(self, segment: SegmentIndex) -> None:
        for part in self._parts.values():
            part.add(segment)

    def search(self, question: Question, k: int, stretches: Sequence[Stretch]) -> Hits:
        count = sum(map(len, stretches))
        k = min(k, count)
        depth = min(count, max(4 * k, 100))
        rankings = [
            part.search(question, depth, stretches).places.tolist() for part in self._parts.values()
        ]
        weights = [self._weights[name] for name in self._parts]
        fused = reciprocal_rank(rankings, weights, self._k0)
        return _hits(dict(islice(fused.items(), k)), stretches)

    def frame_count(self, video_id: str) -> int:
        return min(part.frame_count(video_id) for part in self._parts.values())

    def load(self, folder: Path, video_id: str, timeline: Timeline) -> None:
        for part in self._parts.values():
            part.load(folder, video_id, timeline)

    def save(self, folder: Path, video_id: str, timeline: Timeline) -> None:
        for part in self._parts.values():
            part.save(folder, video_id, timeline)

    def forget(self, video_id: str) -> None:
        for part in self._parts.values():
            part.forget(video_id)
