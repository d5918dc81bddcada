"""An index over keys: exact at full search, the same for what comes later, and better with
directions of queries than with drawn ones where queries and keys lie in different places.
"""

import numpy as np
import pytest
import torch

from encoders.errors import UserError
from memory.retrieval.block_score.key_centroids import KeyCentroids
from memory.retrieval.block_score.representative_keys import RepresentativeKeys
from memory.retrieval.key_index.query_lists import QueryLists
from memory.retrieval.kv import KVRetriever
from memory.schema import FrameKeys, Question, SegmentIndex, Stretch
from pipeline.evaluation.profiles.query_profile import directions

L, H, HQ, DH, T, TOKENS = 2, 2, 4, 16, 60, 3
ASK = Question("x", "v")


def segment(number: int, frames: int = 20) -> SegmentIndex:
    """Keys of a head around a place of its own, far from its queries."""
    generator = torch.Generator().manual_seed(number)
    keys = torch.randn(L, H, frames * TOKENS, DH, generator=generator) + 4.0
    offsets = torch.arange(frames + 1) * TOKENS
    means = keys.unflatten(2, (frames, TOKENS)).mean(3).permute(2, 0, 1, 3).flatten(2)
    own = FrameKeys(keys, offsets, torch.arange(frames))
    times = number * frames + torch.arange(float(frames))
    return SegmentIndex("v", number, number * frames, times, None, means, {}, own)


def queries(seed: int = 0, count: int = 5) -> torch.Tensor:
    """In three of the sixteen directions."""
    generator = torch.Generator().manual_seed(seed)
    few = torch.randn(count, L, HQ, 3, generator=generator)
    return torch.cat([few, 0.05 * torch.randn(count, L, HQ, DH - 3, generator=generator)], -1)


def retriever(segments: int = 3, **options) -> KVRetriever:
    made = KVRetriever(queries=lambda text: queries(), **options)
    for number in range(segments):
        made.add(segment(number))
    return made


@pytest.mark.parametrize("score", [None, RepresentativeKeys(count=2)])
@pytest.mark.parametrize("vote", ["head", "softmax"])
def test_a_full_search_is_exact(score, vote):
    every = QueryLists(lists=8, probes=8, nearest=10_000)
    stretches = [Stretch("v", 3, 31), Stretch("v", 40, T)]
    for part in (stretches, [Stretch("v", 0, T)]):
        with_all, without = (
            retriever(block_score=score, normalize=vote, key_index=index).search(ASK, 9, part)
            for index in (every, None)
        )
        assert torch.equal(with_all.places, without.places)
        assert torch.equal(with_all.scores, without.scores)
        every.forget("v")


def test_fewer_frames_are_compared_and_as_many_are_found_as_are_asked_for():
    index = QueryLists(lists=8, probes=1, nearest=4)
    made = retriever(key_index=index)
    found = made.search(ASK, 50, [Stretch("v", 0, T)])
    candidates = index.candidates(np.zeros((L, H, 1, DH), np.float32) + 1, [Stretch("v", 5, 30)])
    assert 0 < len(candidates) <= L * H * 4 and candidates.max() < 25
    assert len(set(found.frames.tolist())) == 50
    assert made.nbytes > retriever().nbytes
    made.forget("v")
    assert index.nbytes == 0 and index.frame_count("v") == 0


def test_what_comes_later_changes_no_candidate():
    indexes = [QueryLists(lists=8, probes=2, nearest=5) for _ in range(2)]
    early, late = (
        retriever(count, key_index=index) for count, index in zip((1, 3), indexes, strict=True)
    )
    part = [Stretch("v", 0, 20)]
    for made in (early, late):
        made.search(ASK, 5, part)
    asked = queries(7)[0].unflatten(1, (H, -1)).numpy()
    assert np.array_equal(*(index.candidates(asked, part) for index in indexes))


def test_directions_of_queries_find_more_than_drawn_ones(tmp_path):
    """Recall of the ten nearest keys, at the same number of probes, with other queries."""
    keys = torch.cat([segment(number).key_means for number in range(3)]).unflatten(2, (H, DH))
    made = directions([queries(seed) for seed in range(1, 9)], H, 8)
    assert made.shape == (L, H, 8, DH)
    assert torch.allclose(made.norm(dim=-1), torch.ones(L, H, 8))
    path = tmp_path / "profile.npz"
    np.savez(path, directions=made.numpy(), common=keys.mean(0).numpy())
    asked = queries(99, 12).permute(1, 2, 0, 3).unflatten(1, (H, -1)).flatten(2, 3).numpy()
    recall = {}
    for name, profile in (("drawn", None), ("queries", str(path))):
        index = QueryLists(lists=8, probes=2, nearest=10, profile=profile)
        index.add("v", keys.numpy()[:, :, :, None])
        hits = []
        for layer in range(L):
            for head in range(H):
                for query in asked[layer, head]:
                    want = np.argsort(-(keys[:, layer, head].numpy() @ query))[:10]
                    lists = index._indexes["v"][layer][head]
                    lists.nprobe = 2
                    got = lists.search(query[None], 10)[1]
                    hits.append(len(set(want) & set(got[0].tolist())) / 10)
        recall[name] = np.mean(hits)
    assert recall["queries"] > recall["drawn"] + 0.1


def test_what_does_not_fit_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"key_index\.probes=0 must be 1"):
        QueryLists(probes=0)
    with pytest.raises(UserError, match="cannot be read as a profile of queries"):
        QueryLists(profile=str(tmp_path / "none.npz"))
    with pytest.raises(UserError, match="use block_score=mean_key or representative"):
        retriever(block_score=KeyCentroids(keep=1.0), key_index=QueryLists())
    other = tmp_path / "other.npz"
    np.savez(other, directions=np.zeros((1, 1, 4, 8)), common=np.zeros((1, 1, 8)))
    with pytest.raises(UserError, match="1 layers, 1 KV heads and heads of 8"):
        retriever(key_index=QueryLists(profile=str(other))).search(ASK, 5, [Stretch("v", 0, T)])
