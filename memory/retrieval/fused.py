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

# text of a question -> name of a part -> share of its weight
SharesOf = Callable[[str], Mapping[str, float]]


class FusedRetriever:
    """Weighted reciprocal rank fusion: score = sum of weight / (k0 + rank), rank from 1
    (memory/retrieval/fusion.py).

    Raw scores of different retrievers are never compared: cosines and z-scores have no common
    scale.
    parts: name -> partial of a retriever, called here with the same partners.
    weights: name -> weight, 1 where absent. A part of weight 0 ranks only what the others leave.
    k0: how flat the weighting is; with 60, agreement of several parts beats one part's first place.
    further_weight: of each retriever in `further`.
    Each part ranks max(4 k, 100) frames; a frame that a part does not rank gets nothing from it.
    """

    def __init__(
        self,
        parts: Mapping[str, Callable[..., Retriever]],
        weights: Mapping[str, float] | None = None,
        k0: float = K0,
        *,
        further_weight: float = 1.0,
        embedder: FrameEmbedder | None = None,
        queries: Queries | None = None,
        further: Mapping[str, Retriever] | None = None,
        shares_of: SharesOf | None = None,
    ) -> None:
        """further: retrievers over the rows of further frame embedders, by name. shares_of: says
        for the text of a question how much of its weight a part keeps, 0 to 1; all of it where it
        says nothing."""
        weights, further = weights or {}, further or {}
        unknown = sorted(set(weights) - set(parts))
        numbers = (k0, further_weight, *weights.values())
        if unknown or not (parts or further) or any(number < 0 for number in numbers):
            raise UserError(
                f"retriever=fused cannot use parts {sorted(parts)}, weights {dict(weights)}, "
                f"k0={k0}; "
                "give each weight the name of a part and no negative number"
            )
        self._parts = {
            name: part(embedder=embedder, queries=queries) for name, part in parts.items()
        }
        self._weights = {name: float(weights.get(name, 1.0)) for name in parts}
        self._parts |= further
        self._weights |= dict.fromkeys(further, float(further_weight))
        self._k0, self._shares_of = k0, shares_of
        self.reads = frozenset[str]().union(*(part.reads for part in self._parts.values()))

    @property
    def parts(self) -> Mapping[str, Retriever]:
        """By name."""
        return self._parts

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self._parts.values())

    def weights_of(self, question: Question) -> dict[str, float]:
        """The weight of each part for a question."""
        shares = {} if self._shares_of is None else self._shares_of(question.text)
        return {name: self._weights[name] * shares.get(name, 1.0) for name in self._parts}

    def add(self, segment: SegmentIndex) -> None:
        for part in self._parts.values():
            part.add(segment)

    def search(self, question: Question, k: int, stretches: Sequence[Stretch]) -> Hits:
        count = sum(map(len, stretches))
        k = min(k, count)
        depth = min(count, max(4 * k, 100))
        weights = self.weights_of(question)

        def ranking(name: str) -> list[int]:
            places: list[int] = self._parts[name].search(question, depth, stretches).places.tolist()
            return places

        used = [name for name, weight in weights.items() if weight > 0]
        rankings = [ranking(name) for name in used]
        fused = reciprocal_rank(rankings, [weights[name] for name in used], self._k0)
        for name in [each for each in weights if each not in used] if len(fused) < k else []:
            fused |= dict.fromkeys((place for place in ranking(name) if place not in fused), 0.0)
        best = dict(islice(fused.items(), k))
        return hits(list(best), list(best.values()), stretches)

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
