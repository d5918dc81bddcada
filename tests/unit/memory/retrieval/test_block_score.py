"""Searches by keys, against what they estimate: each has a limit in which it is exact.

Random keys and queries of 2 layers, 2 KV heads and 4 query heads.
"""

import json
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from encoders.errors import UserError
from encoders.models.loading.retrieval_heads import FORMAT
from memory.retrieval.block_score.channel_subset import ChannelSubset
from memory.retrieval.block_score.clustering import farthest_first, k_means
from memory.retrieval.block_score.hadamard_sketch import HadamardSketch, transformed
from memory.retrieval.block_score.key_centroids import KeyCentroids
from memory.retrieval.block_score.mean_key import MeanKey
from memory.retrieval.block_score.query_pools import (
    ActivationBias,
    EachToken,
    LastQuery,
    MeanQuery,
)
from memory.retrieval.block_score.representative_keys import RepresentativeKeys
from memory.retrieval.kv import KVRetriever
from memory.schema import FrameKeys, Hits, Question, SegmentIndex
from tests.support.retrievers import upto

L, H, GROUP, WIDTH, FRAMES, MOST = 2, 2, 2, 16, 40, 6
ASKED = Question("x", "v")


def random_index(frames: int = FRAMES, seed: int = 0) -> SegmentIndex:
    """Frames of 3 to 6 tokens; the tokens of a frame have a direction in common."""
    generator = torch.Generator().manual_seed(seed)
    counts = torch.randint(3, MOST + 1, (frames,), generator=generator)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
    keys = torch.randn(L, H, int(offsets[-1]), WIDTH, generator=generator)
    keys += torch.randn(L, H, frames, WIDTH, generator=generator).repeat_interleave(counts, 2)
    keys = keys.half().float()  # as rows are kept, so that limits are exact
    means = torch.stack([keys[:, :, a:b].mean(2) for a, b in pairwise(offsets.tolist())])
    own = FrameKeys(keys, offsets, torch.arange(frames))
    return SegmentIndex("v", 0, 0, torch.arange(float(frames)), None, means.flatten(2), {}, own)


def queries(text: str = "x", tokens: int = 5) -> torch.Tensor:
    return torch.randn(tokens, L, H * GROUP, WIDTH, generator=torch.Generator().manual_seed(7))


def search(k: int = FRAMES, index: SegmentIndex | None = None, **settings: Any) -> Hits:
    retriever = KVRetriever(queries=queries, **settings)
    retriever.add(index or random_index())
    return retriever.search(ASKED, k, upto(retriever.frame_count("v")))


def products(index: SegmentIndex, pooled: torch.Tensor) -> list[torch.Tensor]:
    """Of each frame [m, L, Hq, tokens]: scaled products, written out."""
    assert index.keys is not None
    keys, edges = index.keys.keys.repeat_interleave(GROUP, 1), index.keys.offsets.tolist()
    return [
        torch.einsum("mlhd,lhtd->mlht", pooled, keys[:, :, a:b]) / WIDTH**0.5
        for a, b in pairwise(edges)
    ]


def test_all_keys_as_representatives_are_the_mean_key():
    whole = search(block_score=RepresentativeKeys(count=MOST, pool="mean"))
    mean = search(block_score=MeanKey())
    assert whole.scores.numpy() == pytest.approx(mean.scores.numpy(), abs=0.01)
    assert whole.frames[:10].tolist() == mean.frames[:10].tolist()


def test_all_keys_as_representatives_find_the_best_token_exactly():
    index = random_index()
    found = search(block_score=RepresentativeKeys(count=MOST), normalize="softmax")
    best = torch.stack([each.amax(-1) for each in products(index, queries().mean(0, keepdim=True))])
    votes = best.softmax(0).mean((1, 2, 3))  # [T]
    assert found.frames.tolist() == votes.argsort(descending=True).tolist()
    assert found.scores.numpy() == pytest.approx(votes.sort(descending=True).values, abs=1e-4)


@pytest.mark.parametrize("pool", [MeanQuery(), EachToken()])
def test_all_keys_as_centroids_are_attention_exactly(pool):
    """With as many centroids as tokens and the soft vote, a frame's score is the attention that its
    tokens get, mean over tokens, heads and layers.
    """
    index, pooled = random_index(), pool(queries())
    shares = torch.cat(products(index, pooled), -1).softmax(-1)
    mass = torch.stack(
        [shares[..., a:b].sum(-1) for a, b in pairwise(index.keys.offsets.tolist())]
    ).mean((1, 2, 3))
    score = KeyCentroids(count=MOST, keep=1.0)
    found = search(block_score=score, query_pool=pool, normalize="softmax")
    assert found.frames.tolist() == mass.argsort(descending=True).tolist()
    assert found.scores.numpy() == pytest.approx(mass.sort(descending=True).values, abs=1e-4)


@pytest.mark.parametrize(("keep", "k"), [(0.25, 4), (0.5, 20), (0.1, 12), (0.01, FRAMES), (1.0, 9)])
def test_the_coarse_level_leaves_its_best_frames_to_the_fine_one(keep, k):
    """Written out: level 1 is the mean key and the number of tokens, level 2 exact here. A search
    never gets fewer frames than it asks for.
    """
    each = products(random_index(), queries().mean(0, keepdim=True))
    coarse = torch.stack([one.mean(-1) + math.log(one.shape[-1]) for one in each])
    most = max(k, math.ceil(keep * FRAMES))
    kept = coarse.softmax(0).mean((1, 2, 3)).argsort(descending=True)[:most]
    fine = torch.stack([one.logsumexp(-1) for one in each])[kept].softmax(0).mean((1, 2, 3))
    found = search(k, block_score=KeyCentroids(count=MOST, keep=keep), normalize="softmax")
    if keep == 1.0:
        fine = torch.stack([one.logsumexp(-1) for one in each]).softmax(0).mean((1, 2, 3))
        kept = torch.arange(FRAMES)
    assert found.frames.tolist() == kept[fine.argsort(descending=True)][:k].tolist()
    assert len(found.frames) == k


def test_a_row_depends_on_its_frame_alone():
    """Law 3: rows of the first frames are the same whether or not others follow."""
    index = random_index()
    cut = int(index.keys.offsets[9])
    first = FrameKeys(index.keys.keys[:, :, :cut], index.keys.offsets[:10], torch.arange(9))
    short = SegmentIndex("v", 0, 0, index.times[:9], None, None, {}, first)
    for score in (RepresentativeKeys(), KeyCentroids(), HadamardSketch()):
        assert np.array_equal(score.rows(short), score.rows(index)[:9])


def profile(tmp_path: Path, importance: np.ndarray) -> str:
    path = tmp_path / "profile.json"
    path.write_text(json.dumps({"importance": importance.tolist()}))
    return str(path)


def test_all_channels_are_the_mean_key(tmp_path):
    """With z-scores, mean keys sum the query heads of a key head first, as a profile does."""
    given = profile(tmp_path, np.random.default_rng(0).random((L, H, WIDTH)))
    by_profile = ChannelSubset(count=99, profile=given)
    for score, vote in (
        (ChannelSubset(count=WIDTH), "softmax"),
        (by_profile, "softmax"),
        (by_profile, "head"),
    ):
        mean = search(block_score=MeanKey(), normalize=vote)
        found = search(block_score=score, normalize=vote)
        assert found.frames.tolist() == mean.frames.tolist()
        assert found.scores.numpy() == pytest.approx(mean.scores.numpy(), abs=1e-4)


def test_a_channel_subset_counts_the_channels_of_its_query_or_of_its_profile(tmp_path):
    """Written out: other channels count nothing."""
    index, pooled = random_index(), queries().mean(0)  # [L, Hq, Dh]
    assert index.key_means is not None
    keys = index.key_means.unflatten(2, (H, WIDTH)).repeat_interleave(GROUP, 2)  # [T, L, Hq, Dh]
    largest = pooled.abs() >= pooled.abs().topk(5).values[..., -1:]
    importance = np.random.default_rng(1).random((L, H, WIDTH))
    best = torch.from_numpy(importance >= np.sort(importance)[..., -5:-4]).repeat_interleave(
        GROUP, 1
    )
    given = profile(tmp_path, importance)
    for score, kept in (
        (ChannelSubset(count=5), largest),
        (ChannelSubset(count=5, profile=given), best),
    ):
        each = torch.einsum("tlhd,lhd->tlh", keys, pooled * kept) / WIDTH**0.5
        votes = each.softmax(0).mean((1, 2))
        found = search(block_score=score, normalize="softmax")
        assert found.frames.tolist() == votes.argsort(descending=True).tolist()
        assert found.scores.numpy() == pytest.approx(votes.sort(descending=True).values, abs=1e-4)
    rows = ChannelSubset(count=5, profile=given).rows(index)
    assert rows is not None and rows.shape == (FRAMES, L, H * 5)


def test_repeated_frames_have_the_row_of_the_frame_that_they_repeat():
    index = random_index(4)
    again = FrameKeys(index.keys.keys, index.keys.offsets, torch.tensor([0, 0, 2, 2]))
    rows = KeyCentroids().rows(SegmentIndex("v", 0, 0, index.times, keys=again))
    assert np.array_equal(rows[0], rows[1]) and np.array_equal(rows[2], rows[3])
    assert not np.array_equal(rows[0], rows[2])


def test_k_means_and_farthest_points():
    points = torch.tensor([[[0.0, 0], [0.1, 0], [5, 0], [5.1, 0], [0, 9]]])
    centroids, counts = k_means(points, 3, 5)
    found = {(round(float(x), 2), round(float(y), 2)) for x, y in centroids[0]}
    assert found == {(0.05, 0.0), (5.05, 0.0), (0.0, 9.0)} and sorted(counts[0].tolist()) == [
        1,
        2,
        2,
    ]
    same, ones = k_means(points, 7, 5)  # more than there are: the points themselves
    assert same.shape == (1, 5, 2) and ones.tolist() == [[1.0] * 5]
    equal = torch.ones(1, 4, 2)
    assert sorted(farthest_first(equal, 4)[0].tolist()) == [0, 1, 2, 3]


@pytest.mark.parametrize("width", [16, 20, 64])
def test_the_hadamard_transform_keeps_every_product(width):
    q, k = torch.randn(2, 5, width, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(transformed(q) @ transformed(k).T, q @ k.T, atol=1e-5)


def test_a_sketch_has_two_bits_a_channel_and_ranks_almost_as_mean_keys():
    """A normal channel in the best four levels keeps 1 - 0.1175 of its variance (Max 1960), so
    products correlate with the exact ones by 0.94.
    """
    index = random_index(400)
    assert HadamardSketch().rows(index).nbytes == 400 * L * H * (WIDTH // 4 + 2)
    exact = search(400, index, block_score=MeanKey())
    for distance, least in (("dot", 0.9), ("manhattan", 0.5)):
        found = search(400, index, block_score=HadamardSketch(distance=distance))
        scores = [torch.empty(400).scatter(0, one.places, one.scores) for one in (exact, found)]
        assert float(torch.corrcoef(torch.stack(scores))[0, 1]) > least, distance
        held = len(set(exact.frames[:40].tolist()) & set(found.frames[:40].tolist())) / 40
        assert held > 3 * 40 / 400, distance  # three times what chance finds


def test_the_soft_vote_gives_no_head_more_than_its_share():
    """A head a thousand times as loud as the others has one vote of L * Hq. The z-score of a head
    has no such limit."""
    loud = queries()
    loud[:, 0, 0] *= 1000

    def votes(each: torch.Tensor) -> torch.Tensor:
        retriever = KVRetriever(queries=lambda text: each, normalize="softmax")
        retriever.add(random_index())
        found = retriever.search(ASKED, FRAMES, upto(FRAMES))
        return torch.empty(FRAMES).scatter(0, found.places, found.scores)

    before, after = votes(queries()), votes(loud)
    assert float(before.sum()) == pytest.approx(1) and float(after.sum()) == pytest.approx(1)
    assert float((after - before).abs().sum()) / 2 <= 1 / (L * H * GROUP) + 1e-6


def test_pools_of_queries():
    own = queries()
    assert torch.equal(MeanQuery()(own)[0], own.mean(0))
    assert torch.equal(LastQuery()(own)[0], own[-1]) and torch.equal(EachToken()(own), own)
    equal = own[:1].expand(5, -1, -1, -1)
    assert torch.allclose(ActivationBias()(equal), equal[:1])
    apart = torch.cat([equal[:4], equal[:1] + 100.0])
    weights = torch.tensor([1 / 25, 1 / 25, 1 / 25, 1 / 25, 16 / 25]) / 0.8
    expected = (weights[:, None, None, None] * apart).sum(0)
    assert torch.allclose(ActivationBias()(apart)[0], expected, atol=1e-3)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: RepresentativeKeys(count=0), "use 1 or more"),
        (lambda: RepresentativeKeys(pool="sum"), "use max or mean"),
        (lambda: KeyCentroids(count=0), "use 1 or more"),
        (lambda: KeyCentroids(keep=0), "0 < keep <= 1"),
        (lambda: KeyCentroids(rounds=-1), "0 or more"),
        (lambda: HadamardSketch(distance="l2"), "manhattan or dot"),
        (lambda: ChannelSubset(count=0), "gives no channel"),
        (lambda: ChannelSubset(profile="no-such-file.json"), "cannot be read as a profile"),
        (
            lambda: KVRetriever(queries=queries, similarity="cosine", block_score=KeyCentroids()),
            "block_score=mean_key",
        ),
    ],
)
def test_settings_that_do_not_fit(make, words):
    with pytest.raises(UserError, match=words):
        make()


def test_a_profile_of_another_model_is_refused(tmp_path):
    score = ChannelSubset(profile=profile(tmp_path, np.ones((L + 1, H, WIDTH))))
    with pytest.raises(UserError, match="a model with 3 layers and 2 KV heads"):
        score.rows(random_index())
    with pytest.raises(UserError, match=r"must have finite numbers"):
        ChannelSubset(profile=profile(tmp_path, np.ones(3)))


def test_a_layer_whose_scores_are_spread_gets_more_of_the_budget():
    """In layer 0 one frame has all; in layer 1 all frames are alike but for little."""
    index = random_index()
    means = torch.zeros(FRAMES, L, H * WIDTH)
    asked = queries().mean(0).unflatten(1, (H, GROUP)).sum(2).flatten(1)  # [L, H * Dh]
    means[7, 0] = 50 * asked[0]
    means[:, 1] = asked[1] * torch.linspace(0.9, 1.1, FRAMES)[:, None]
    planted = replace(index, key_means=means)
    for vote, least in (("head", 0.7), ("softmax", 0.9)):
        found = search(index=planted, per_layer=True, layer_budget="density", normalize=vote)
        assert found.layer_shares is not None
        assert found.layer_shares.sum() == pytest.approx(1, abs=1e-5)
        assert found.layer_shares[1] > least, (vote, found.layer_shares)
    alike = replace(index, key_means=means[:, 1:].expand(-1, 2, -1).contiguous())
    same = search(index=alike, per_layer=True, layer_budget="density")
    assert same.layer_shares == pytest.approx([0.5, 0.5], abs=0.1)
    assert search(index=alike, per_layer=True).layer_shares is None
    with pytest.raises(UserError, match=r"needs retriever\.per_layer=true"):
        search(layer_budget="density")
    with pytest.raises(UserError, match="even or density"):
        search(per_layer=True, layer_budget="odd")


@pytest.mark.parametrize("heads", [False, True])
def test_a_window_of_all_frames_ranks_by_attention_exactly(tmp_path, heads):
    own = {"heads": voters(tmp_path)} if heads else {}
    settings = {"block_score": KeyCentroids(count=MOST, keep=1.0), "normalize": "softmax", **own}
    whole = search(**settings)
    for window in (FRAMES, 3 * FRAMES):
        found = search(scan_frames=window, scan_keep=3, **settings)
        assert found.frames.tolist() == whole.frames.tolist()
        assert found.scores.numpy() == pytest.approx(whole.scores.numpy(), abs=1e-6)
    assert search(scan_frames=7, **settings).frames.tolist() != whole.frames.tolist()


def voters(tmp_path: Path) -> str:
    path = tmp_path / "heads.json"
    heads = {"format": FORMAT, "heads": [[0, 1], [1, 2]], "least_on_frames": 0.0}
    path.write_text(json.dumps(heads))
    return str(path)


def test_a_scan_keeps_the_best_of_each_window():
    """Written out with three frames that stand out, one in each of three windows."""
    each = products(random_index(), queries().mean(0, keepdim=True))
    scores = torch.stack([one.logsumexp(-1) for one in each]).flatten(1)  # [T, L * Hq]
    kept: list[int] = []
    for first in range(0, FRAMES, 16):
        together = [*kept, *range(first, min(first + 16, FRAMES))]
        shares = scores[together].softmax(0).mean(1)
        kept = sorted(together[place] for place in shares.argsort(descending=True)[:5].tolist())
    score = KeyCentroids(count=MOST, keep=1.0)
    found = search(5, block_score=score, normalize="softmax", scan_frames=16, scan_keep=5)
    assert sorted(found.frames.tolist()) == kept
    every = search(block_score=score, normalize="softmax", scan_frames=16, scan_keep=5)
    assert every.frames[:5].tolist() == found.frames.tolist()
    assert sorted(every.frames.tolist()) == list(range(FRAMES))


def test_a_scan_that_compares_nothing_is_told():
    for settings, words in (
        ({"scan_frames": 4}, "use retriever.normalize=softmax"),
        ({"scan_frames": 4, "normalize": "softmax", "per_layer": True}, "without per_layer"),
        ({"scan_frames": 0, "normalize": "softmax"}, "scan_frames=0 .* use 1 or more of each"),
        ({"scan_frames": 4, "normalize": "softmax", "scan_keep": 0}, "scan_keep=0 compares"),
    ):
        with pytest.raises(UserError, match=words):
            search(**settings)
