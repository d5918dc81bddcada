"""Sparse prefill: every way of conf/sparsity/ against attention over the keys that it keeps, and
against dense attention where it keeps all.
"""

import encoders.models.torchvision_ops  # noqa: F401

import pytest
import torch
import yaml

from encoders.errors import UserError
from encoders.models.attention import ATTENTIONS
from encoders.models.sparsity.sample_attention import SampleAttention
from encoders.models.sparsity.sparsity import Sparsity, earlier
from encoders.models.sparsity.x_attention import XAttention
from encoders.prefill import WindowPrefill
from pipeline.config.parts import instantiate
from tests.support.paths import ROOT
from tests.support.rotary_models import SMALL, wrapped
from tests.support.toy_evidence import encode
from tests.support.toys import toy_backbone, toy_frames

import transformers as T  # isort: skip

YAMLS = sorted((ROOT / "conf/sparsity").glob("*.yaml"), key=lambda path: path.stem)
WAYS = {"x": XAttention(threshold=0.5, block=4, stride=2), "sample": SampleAttention(threshold=0.5)}
IDS = list(range(5, 45))


def random_pair(count: int, length: int, size: float = 3.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(length)
    return (
        size * torch.randn(4, count, 16, generator=generator),
        torch.randn(2, length, 16, generator=generator),
    )


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.stem)
def test_a_threshold_of_one_keeps_all(path):
    """Also where nearly all attention is on one key, so that the others' shares round to 0."""
    node = yaml.safe_load(path.read_text())
    part: Sparsity = instantiate("sparsity", node)
    assert part.is_dense == (path.stem == "none")
    whole = part if part.is_dense else instantiate("sparsity", node | {"threshold": 1.0})
    assert whole.is_dense and whole.choose(*random_pair(300, 420, size=50.0), 1.0) is None


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize(("count", "length"), [(40, 40), (13, 42), (1, 9), (5, 5)])
def test_kept_keys_are_earlier_ones_and_every_query_has_one(way, count, length):
    chosen = way.choose(*random_pair(count, length), 0.25)
    causal = earlier(count, length, torch.device("cpu"))
    if chosen is None:
        assert count == 1 or length < 8
        return
    assert chosen.shape == (4, count, length) and not bool((chosen & ~causal).any())
    own = torch.arange(length - count, length)
    assert bool(chosen[:, torch.arange(count), own].all())
    assert bool(chosen.sum() < 4 * causal.sum())


@pytest.mark.parametrize("offset", [0, 2, 5, 8])
def test_shares_of_blocks_are_those_of_antidiagonals(offset):
    """Cell by cell, as the paper defines them."""
    way, count = XAttention(threshold=0.5, block=4, stride=2), 11
    length = offset + count
    query, key = random_pair(count, length)
    got, first = way._shares(query, key, 0.25)
    cells = -(-length // 4) * 2
    padded = torch.zeros(4, 2 * cells, 16), torch.zeros(2, 2 * cells, 16)
    padded[0][:, offset:length], padded[1][:, :length] = query, key
    shares = torch.zeros(4, cells, cells)
    for head in range(4):
        for row in range(offset // 2, -(-length // 2)):
            scores = torch.full((cells,), -torch.inf)
            for cell in range(row + 1):
                pairs = [(2 * row + 1 - i, 2 * cell + i) for i in range(2)]
                products = [padded[0][head, a] @ padded[1][head // 2, b] for a, b in pairs]
                scores[cell] = 0.25 / 2 * sum(products)
            shares[head, row] = scores.softmax(-1)
    blocks = shares.unflatten(1, (-1, 2)).unflatten(3, (-1, 2)).sum((2, 4))[:, first:]
    assert first == offset // 4
    assert torch.allclose(got, blocks / blocks.sum(-1, keepdim=True), atol=1e-5)


def test_a_loud_block_is_kept_and_a_quiet_one_is_not():
    query, key = torch.zeros(4, 4, 16), 0.01 * torch.randn(2, 40, 16)
    query[..., 0] = 1.0
    key[:, 16:20, 0] = 60.0
    chosen = XAttention(threshold=0.9, block=4, stride=2).choose(query, key, 0.25)
    kept = chosen.any(1)[0].unflatten(0, (-1, 4)).all(1)
    assert kept.nonzero()[:, 0].tolist() == [0, 4, 9]  # the sink, the loud one, and its own
    columns = SampleAttention(threshold=0.9, sample=0.5, window=0.0).choose(query, key, 0.25)
    assert columns[0, 0].nonzero()[:, 0].tolist() == [16, 17, 18, 19, 36]


@pytest.mark.parametrize("threshold", [0.3, 0.8, 0.99])
def test_kept_columns_hold_the_threshold_of_the_sampled_queries(threshold):
    query, key = random_pair(60, 100)
    chosen = SampleAttention(threshold=threshold, sample=0.1, window=0.0).choose(query, key, 0.25)
    scores = query @ key.repeat_interleave(2, 0).transpose(1, 2) * 0.25
    causal = earlier(60, 100, query.device)
    rows = torch.arange(9, 60, 10)
    shares = scores.masked_fill(~causal, -torch.inf).softmax(-1)[:, rows]
    assert bool(((shares * chosen[:, rows]).sum(-1).mean(1) >= threshold - 1e-5).all())


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_prefill_is_attention_over_the_kept_keys(way, attention):
    """The first layer against softmax over the chosen keys; a threshold of 1 against dense."""
    model = wrapped(T.LlamaConfig(**SMALL), T.LlamaModel, 1, torch.float32)
    model._model.config._attn_implementation = ATTENTIONS[attention]
    caches = []
    for sparsity in (None, way, XAttention(threshold=1.0)):
        cache = model.cache(64)
        model.forward(model.embed(IDS[:8]), cache)
        model.prefill(model.embed(IDS[8:]), cache, sparsity)
        caches.append(cache)
    dense, sparse, whole = (cache.keys[:, 0, :, :40] for cache in caches)
    assert torch.equal(dense, whole)
    assert torch.equal(dense[0], sparse[0])  # the layer before the first attention
    assert not torch.allclose(dense[1, :, 8:], sparse[1, :, 8:], atol=1e-3)
    layer, seen = model._decoder.layers[0], {}
    hook = layer.self_attn.o_proj.register_forward_hook(lambda m, a, out: seen.update(x=a[0]))
    pairs = {}
    listen = lambda n, q, k, s: pairs.setdefault(n, (q, k))  # noqa: E731
    cache = model.cache(64)
    model.forward(model.embed(IDS[:8]), cache)
    with torch.inference_mode():
        placed, *_ = model._decoder_inputs(model.embed(IDS[8:]), cache)
        model._decoder(
            past_key_values=cache, use_cache=True, **placed, sparsity=way, listener=listen
        )
    hook.remove()
    query, key = pairs[0][0][0], pairs[0][1][0]
    scores = query @ key.repeat_interleave(2, 0).transpose(1, 2) * 0.25
    reads = way.choose(query, key, 0.25)
    shares = scores.masked_fill(~reads, -torch.inf).softmax(-1)
    want = shares @ cache.values[0, 0, :, :40].repeat_interleave(2, 0)
    assert torch.allclose(seen["x"][0], want.transpose(0, 1).flatten(1), atol=1e-5)


def test_a_segment_of_threshold_one_has_the_same_bytes():
    backbone, frames = toy_backbone(), toy_frames(12)
    blocks = {}
    for name, sparsity in (
        ("dense", None),
        ("all", SampleAttention(threshold=1.0)),
        ("few", SampleAttention(threshold=0.1, window=0.0)),
    ):
        prefill = WindowPrefill(backbone, window_frames=4, sparsity=sparsity)
        blocks[name] = torch.cat(
            [r.kv.keys for r in encode(backbone, frames, [6, 6], 4, prefill)], 2
        )
    assert torch.equal(blocks["dense"], blocks["all"])
    assert not torch.allclose(blocks["dense"], blocks["few"], atol=1e-3)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: XAttention(threshold=0), r"sparsity\.threshold=0 is no share"),
        (lambda: XAttention(block=10, stride=4), r"stride=4 must divide sparsity\.block=10"),
        (lambda: SampleAttention(sample=2), r"sparsity\.sample=2 is no share"),
        (lambda: SampleAttention(window=-1), r"sparsity\.window=-1 is no share"),
    ],
)
def test_impossible_settings_are_refused(make, says):
    with pytest.raises(UserError, match=says):
        make()
