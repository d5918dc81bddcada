"""Dual Chunk Attention against the distances of its paper, and in one chunk the plain model.

Tiny random text models of every family with positions on one axis; frames are tokens like others.
"""

from types import SimpleNamespace

import encoders.models.torchvision_ops  # noqa: F401

import pytest
import torch

from encoders.errors import UserError
from encoders.models.heads.head_spans import HeadSpans
from encoders.models.language_model import scaled_model
from encoders.models.position.dual_chunk import ChunkRotary, DualChunks
from encoders.schema import FrameEmbeds, KVBlock
from tests.support.plain_attention import dense
from tests.support.rotary_models import MODELS, language_model

S, C = 8, 12  # of a chunk, and trained
WAY = DualChunks(S, C)
IDS = list(range(5, 35))  # 30 tokens: four chunks
LINEAR = sorted(name for name, (*_, axes) in MODELS.items() if axes == 1)


def distance(i: int, j: int) -> int:
    """Between the query at i and the key at j, as in the paper's equations 3 to 7."""
    chunks = i // S - j // S
    stands = i % S if chunks == 0 else min(i % S + S, C - 1) if chunks == 1 else C - 1
    return stands - j % S


def run(model, ids=IDS, step=None):
    """[n, D] hidden states, `step` tokens at a time, and what a listener saw in the last pass."""
    cache, seen, out = model.cache(64), {}, []
    listen = None if step is None else lambda layer, q, k, scaling: seen.update({layer: (q, k)})
    for first in range(0, len(ids), step or len(ids)):
        part = model.embed(ids[first : first + (step or len(ids))])
        out.append(model.forward(part, cache, listen))
    return torch.cat(out), seen


@pytest.mark.parametrize("name", LINEAR)
def test_products_are_those_of_the_papers_distances(name):
    model = scaled_model(language_model(name), WAY)
    rotary = ChunkRotary(S, C, model._plain_table)
    generator = torch.Generator().manual_seed(1)
    q, k = (torch.randn(1, heads, 30, 16, generator=generator) for heads in (4, 2))
    at = torch.arange(30)
    within = model._plain_table(rotary.within(at))
    turned = rotary.queries(at, 64).spread(within.rotate(q), within.rotate(k))
    got = turned[0] @ turned[1].repeat_interleave(2, 1).transpose(2, 3)
    far = max(distance(i, j) for i in range(30) for j in range(i + 1))
    assert far == C - 1
    tables = {d: model._plain_table(torch.tensor([d])) for d in range(far + 1)}
    zero = tables[0].rotate(k.transpose(0, 2)).transpose(0, 2)  # with the scaling, if there is one
    for i in range(30):
        for j in range(i + 1):
            own = tables[distance(i, j)].rotate(q[:, :, i : i + 1])[0, :, 0]
            want = (own * zero[0, :, j].repeat_interleave(2, 0)).sum(-1)
            assert torch.allclose(got[0, :, i, j], want, atol=1e-4)


@pytest.mark.parametrize("name", ["llama", "glm-4, table in halves"])
def test_one_chunk_is_the_plain_model_bit_by_bit(name):
    plain = language_model(name)
    chunked = scaled_model(plain, DualChunks(32, 48))
    assert torch.equal(run(chunked)[0], run(plain)[0])
    assert torch.equal(run(chunked, step=1)[0], run(plain, step=1)[0])
    assert not torch.allclose(run(scaled_model(plain, WAY))[0], run(plain)[0], atol=1e-2)


@pytest.mark.parametrize("name", ["llama", "qwen3, normalized keys"])
def test_steps_and_batches_and_stored_frames_equal_one_pass(name):
    model = scaled_model(language_model(name), WAY)
    whole, _ = run(model)
    steps, seen = run(model, step=1)
    assert torch.allclose(steps, whole, atol=1e-4)
    last = {}
    model.forward(model.embed(IDS), model.cache(64), lambda n, q, k, s: last.update({n: (q, k)}))
    for layer, (query, key) in last.items():  # what citations are made of
        products = [q[0, 0, -1] @ k[0, 0].T for q, k in (seen[layer], (query, key))]
        assert torch.allclose(*products, atol=1e-3)
    # rows of unequal length, behind 20 and 13 tokens
    stack = model.batched_cache(2, 64)
    for row, count in zip(stack.rows, (20, 13), strict=True):
        model.prefill(model.embed(IDS[:count]), row)
    stack.join()
    tails = [model.embed(IDS[20:26]), model.embed(IDS[13:17])]
    hidden = model.forward_batch(tails, stack)
    assert torch.allclose(hidden[0, :6], whole[20:26], atol=1e-4)
    assert torch.allclose(hidden[1, :4], whole[13:17], atol=1e-4)
    # keys as they are stored, before rotary embedding
    cache, offsets = model.cache(64), torch.tensor([0, 8, 16])
    model.forward(model.embed(IDS[:5]), cache)
    positions, _ = model.positions.of_frames(None, offsets, cache.cursor)
    table = model.rope(positions)
    frames = FrameEmbeds(model.embed(IDS[5:21]), offsets, torch.ones(16, dtype=torch.bool), None)
    model.prefill(frames, cache)
    block = KVBlock(*cache.stored(5, table, torch.float32), offsets, None)
    again = model.cache(64)
    model.forward(model.embed(IDS[:5]), again)
    model.append_block(block, again)
    assert torch.allclose(model.forward(model.embed(IDS[21:]), again), whole[21:], atol=1e-4)


def test_no_context_is_too_long_and_what_does_not_fit_is_refused():
    model = language_model("llama")
    model.max_positions = 12
    chunked = scaled_model(model, DualChunks())
    cache = chunked.cache(64)
    assert chunked.forward(chunked.embed(IDS), cache).isfinite().all()
    assert chunked.positions_left(cache.cursor) is None
    with pytest.raises(UserError, match="30 positions is longer"):
        run(model)
    with pytest.raises(UserError, match="one axis"):
        scaled_model(language_model("qwen2.5-vl"), WAY)
    with pytest.raises(UserError, match=r"position\.chunk=12 must be below the 12 positions"):
        scaled_model(model, DualChunks(12))
    with pytest.raises(UserError, match="positions=0 must be 1"):
        DualChunks(positions=0)
    model.max_positions = None
    with pytest.raises(UserError, match="positions= is needed"):
        scaled_model(model, DualChunks())


@pytest.mark.parametrize("context", [6, 11])  # within the first chunk, and beyond it
def test_heads_that_read_a_part_read_it_in_dual_chunks_too(context):
    """Everything read is no policy, and what is left stands where it stood."""
    model = scaled_model(language_model("llama"), WAY)
    shape = model.kv_shape

    def answered(span: int | None, text: list[int]) -> torch.Tensor:
        cache = model.cache(64)
        model.prefill(model.embed(text), cache)
        if span is not None:
            spans = torch.full((shape.layers, shape.heads), span)
            cache.context_attention = HeadSpans(spans, 2, context, compensates=True)
        return torch.cat([model.forward(model.embed([token]), cache) for token in IDS[:4]])

    own = IDS[:context]
    assert torch.equal(answered(context, own), answered(None, own))
    assert not torch.allclose(answered(1, own), answered(None, own), atol=1e-2)
    query, key = torch.randn(2, 1, 4, 1, 16), torch.randn(1, 2, 30, 16)
    turned = ChunkRotary(S, C, model._plain_table).queries(torch.tensor([29]), 64)
    queries, keys = turned.spread(query[0], key)
    spans = HeadSpans(torch.full((1, 2), 5), 2, 29, compensates=False)
    layer = SimpleNamespace(layer_idx=0)
    left = [0, 1, *range(24, 30)]
    found = spans.attend(dense, layer, queries, keys, key, None, scaling=0.2)[0]
    expected = dense(layer, queries, keys[:, :, left], key[:, :, left], None, scaling=0.2)[0]
    torch.testing.assert_close(found, expected)
