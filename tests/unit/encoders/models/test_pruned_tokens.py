"""Layers that read a part of the tokens, beside the mask that hides the others."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from encoders.models.heads.pruned_tokens import PrunedTokens

SINK, CONTEXT, NEW, WIDTH, GROUP, SCALING = 3, 20, 4, 8, 2, 0.3


Parts = tuple[Tensor, Tensor, Tensor]


def tensors(new: int = NEW, seed: int = 0) -> Parts:
    chance = torch.Generator().manual_seed(seed)
    query = torch.randn(1, 3 * GROUP, new, WIDTH, generator=chance)
    key, value = torch.randn(2, 1, 3, CONTEXT + NEW, WIDTH, generator=chance)
    return query, key, value


def causal(new: int) -> Tensor:
    return torch.ones(1, 1, new, CONTEXT + NEW, dtype=torch.bool).tril(CONTEXT + NEW - new)


def dense(module, query, key, value, mask, *, scaling):
    group = query.shape[1] // key.shape[1]
    keys, values = (x.repeat_interleave(group, 1) for x in (key, value))
    scores = query @ keys.transpose(2, 3) * scaling
    scores = scores if mask is None else scores.masked_fill(~mask, -torch.inf)
    return (scores.softmax(-1) @ values).transpose(1, 2), None


def layer(own: PrunedTokens, number: int, parts: Parts, mask: Tensor | None) -> Tensor:
    module = SimpleNamespace(layer_idx=number)
    query, key, value = parts
    found: Tensor = own.attend(dense, module, query, key, value, mask, scaling=SCALING)[0]
    return found


@pytest.mark.parametrize(("after", "share"), [(1, 0.3), (2, 0.3), (2, 0.01), (2, 0.9)])
def test_deep_layers_read_as_if_the_others_were_hidden(after: int, share: float) -> None:
    own = PrunedTokens(4, after, share, SINK, CONTEXT)
    for number in range(4):
        parts = tensors(seed=number)
        found = layer(own, number, parts, causal(NEW))
        hidden = causal(NEW)
        if number >= after:
            assert own.places is not None and len(own.places) == own.count < CONTEXT - SINK
            left_out = torch.ones(CONTEXT + NEW, dtype=torch.bool)
            left_out[:SINK] = left_out[CONTEXT:] = False
            left_out[own.places] = False
            hidden = hidden & ~left_out
        expected, _ = dense(None, *parts, hidden, scaling=SCALING)
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    read = own.tokens_read.tolist()
    assert read == [CONTEXT] * after + [SINK + own.count] * (4 - after)


def test_the_last_query_of_the_last_whole_layer_ranks() -> None:
    own = PrunedTokens(3, 1, 0.25, SINK, CONTEXT)
    query, key, value = tensors()
    layer(own, 0, (query, key, value), causal(NEW))
    keys = key[0].repeat_interleave(GROUP, 0)
    shares = (SCALING * torch.einsum("hsd,hd->hs", keys, query[0, :, -1])).softmax(-1).mean(0)
    best = shares[SINK:CONTEXT].topk(own.count).indices.sort().values + SINK
    assert own.places is not None and own.places.tolist() == best.tolist()
    layer(own, 0, tensors(1, seed=5), None)  # a token of the answer reads what the question chose
    assert own.places.tolist() == best.tolist()
    layer(own, 0, tensors(seed=6), causal(NEW))  # the next question ranks anew
    assert own.places.tolist() != best.tolist()


@pytest.mark.parametrize(("after", "share"), [(1, 1.0), (4, 0.1)])
def test_with_nothing_dropped_it_is_the_dense_attention(after: int, share: float) -> None:
    own = PrunedTokens(4, after, share, SINK, CONTEXT)
    for number in range(4):
        parts = tensors(seed=number)
        expected, _ = dense(None, *parts, causal(NEW), scaling=SCALING)
        assert torch.equal(layer(own, number, parts, causal(NEW)), expected)
    assert own.tokens_read.tolist() == [CONTEXT] * 4


def test_without_a_mask_it_is_causal() -> None:
    masked, plain = (PrunedTokens(2, 1, 0.3, SINK, CONTEXT) for _ in range(2))
    for number in range(2):
        parts = tensors(seed=number)
        found = layer(masked, number, parts, causal(NEW))
        other = layer(plain, number, parts, causal(NEW) if number == 0 else None)
        assert torch.equal(found, other)
