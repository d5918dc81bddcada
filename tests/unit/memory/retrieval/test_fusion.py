"""Rank fusion against the formulas written out: the same order and the same scores, bit by bit."""

from collections import defaultdict
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from memory.retrieval.common import hits
from memory.retrieval.fused import FusedRetriever
from memory.retrieval.fusion import Moment, fuse, fuse_frames, fuse_ranked, reciprocal_rank
from memory.retrieval.uniform import UniformRetriever
from memory.schema import Hits, Question, SegmentIndex, Stretch
from tests.support.retrievers import upto

ordinals = st.lists(st.integers(0, 30), max_size=20, unique=True)
weight = st.floats(0, 10) | st.sampled_from([0.0, 0.5, 1.0, 2.0])
k0s = st.sampled_from([0.0, 1.0, 60.0, 60]) | st.floats(0, 100)


class Fixed(UniformRetriever):
    """Ranks frames as the test says."""

    def __init__(self, order: list[int]) -> None:
        super().__init__()
        self.order = order

    def search(self, question: Question, k: int, stretches: Sequence[Stretch]) -> Hits:
        ((_, first, stop),) = stretches
        seen = [frame for frame in self.order if first <= frame < stop][:k]
        return hits(seen, [0.0] * len(seen), stretches)


@given(rankings=st.lists(st.tuples(ordinals, weight), min_size=1, max_size=4), k0=k0s)
def test_it_is_the_sum_over_rankings(rankings, k0):
    scores: defaultdict[int, float] = defaultdict(float)
    for ranking, weight in rankings:
        for rank, item in enumerate(ranking, start=1):
            scores[item] += weight / (k0 + rank)
    best = sorted(scores, key=lambda item: (-scores[item], item))
    fused = reciprocal_rank([ranking for ranking, _ in rankings], [w for _, w in rankings], k0)
    assert list(fused) == best and [fused[item] for item in best] == [scores[i] for i in best]


@given(ranking=ordinals, near=st.lists(st.integers(0, 30), max_size=12))
def test_frames_near_words(ranking, near):
    scores: defaultdict[int, float] = defaultdict(float)
    for each in (ranking, list(dict.fromkeys(near))):
        for rank, ordinal in enumerate(each, start=1):
            scores[ordinal] += 1 / (60.0 + rank)
    best = sorted(scores, key=lambda ordinal: (-scores[ordinal], ordinal))
    fused = fuse_frames(hits(ranking, [0.0] * len(ranking), upto(31)), near)
    assert fused.frames.tolist() == best
    assert torch.equal(fused.scores, hits(best, [scores[ordinal] for ordinal in best]).scores)


@given(rankings=st.lists(ordinals, min_size=1, max_size=2))
def test_frames_records_and_moments_are_fused_in_one_way(rankings):
    """Moments far apart, so that none are merged, and of videos whose names sort as places do."""
    order = list(reciprocal_rank(rankings))
    assert fuse_ranked(rankings, lambda item: item) == order
    if len(rankings) == 2:
        ranked = hits(rankings[0], [0.0] * len(rankings[0]), upto(31))
        assert fuse_frames(ranked, rankings[1]).frames.tolist() == order
    channels = {
        str(number): [Moment("v", 100.0 * each, 100.0 * each + 1, 0.0, ()) for each in ranking]
        for number, ranking in enumerate(rankings)
    }
    moments = fuse(channels, {})
    assert [int(moment.start // 100) for moment in moments] == order
    scores = reciprocal_rank(rankings)
    assert [moment.score for moment in moments] == pytest.approx([scores[i] for i in order])


@given(
    parts=st.dictionaries(st.sampled_from("abc"), ordinals, min_size=1),
    weights=st.dictionaries(st.sampled_from("abc"), weight),
    k0=k0s,
    k=st.integers(1, 31),
)
def test_fused_retriever(parts, weights, k0, k):
    weights = {name: value for name, value in weights.items() if name in parts}
    retriever = FusedRetriever(
        {name: lambda order=order, **_: Fixed(order) for name, order in parts.items()}, weights, k0
    )
    retriever.add(SegmentIndex("v", 0, 0, torch.arange(31, dtype=torch.float64)))
    scores: defaultdict[int, float] = defaultdict(float)
    used = {name: order for name, order in parts.items() if weights.get(name, 1.0)}
    for name, order in used.items():
        for rank, ordinal in enumerate(order, start=1):
            scores[ordinal] += float(weights.get(name, 1.0)) / (k0 + rank)
    best = sorted(scores, key=lambda ordinal: (-scores[ordinal], ordinal))
    # parts of weight 0 rank what the others leave
    best += [place for name, order in parts.items() if name not in used for place in order]
    best = list(dict.fromkeys(best))[:k]
    fused = retriever.search(Question("q", "v"), k, upto(31))
    assert fused.frames.tolist() == best
    assert torch.equal(fused.scores, hits(best, [scores[ordinal] for ordinal in best]).scores)
