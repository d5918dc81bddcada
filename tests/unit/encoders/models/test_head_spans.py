"""Heads that read a part of a context, against the published equation in float64."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from encoders.models.heads.head_spans import HeadSpans
from tests.support.plain_attention import dense

SINK, CONTEXT, NEW, WIDTH, GROUP = 3, 20, 4, 8, 2
LAYER = SimpleNamespace(layer_idx=1)


def tensors(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    chance = torch.Generator().manual_seed(0)
    length = CONTEXT + NEW
    query = torch.randn(1, 3 * GROUP, NEW, WIDTH, generator=chance).to(dtype)
    key, value = torch.randn(2, 1, 3, length, WIDTH, generator=chance).to(dtype)
    return query, key, value


def published(query, key, value, span: int, compensates: bool, scaling: float) -> Tensor:
    """[n, Dh] float64 of one query head [n, Dh], by the sums of the equation."""
    query, key, value = (x.double() for x in (query, key, value))
    edge = CONTEXT - span
    rows = []
    for number, one in enumerate(query):
        left = [i for i in range(CONTEXT + number + 1) if i < SINK or i >= edge]
        weights = [(scaling * one @ key[i]).exp() for i in left]
        terms = [weight * value[i] for weight, i in zip(weights, left, strict=True)]
        if compensates:
            dropped = slice(SINK, edge)
            mean_key, mean_value = key[dropped].mean(0), value[dropped].mean(0)
            weights.append((edge - SINK) * (scaling * one @ mean_key).exp())
            terms.append(weights[-1] * mean_value)
        rows.append(sum(terms) / sum(weights))
    return torch.stack(rows)


@pytest.mark.parametrize("compensates", [True, False])
def test_a_head_reads_what_the_equation_says(compensates):
    query, key, value = tensors()
    spans = torch.tensor([[0, 0, 0], [5, CONTEXT, 2]])  # of the second layer
    own = HeadSpans(spans, SINK, CONTEXT, compensates)
    found, none = own.attend(dense, LAYER, query, key, value, None, scaling=0.3)
    assert none is None and found.shape == (1, NEW, 3 * GROUP, WIDTH)
    everything, _ = dense(LAYER, query, key, value, None, scaling=0.3)
    for head in range(3 * GROUP):
        if head // GROUP == 1:
            assert torch.equal(found[0, :, head], everything[0, :, head])
            continue
        parts = (query[0, head], key[0, head // GROUP], value[0, head // GROUP])
        expected = published(*parts, int(spans[1, head // GROUP]), compensates, 0.3)
        torch.testing.assert_close(found[0, :, head].double(), expected, atol=1e-5, rtol=1e-5)
        assert not torch.allclose(found[0, :, head], everything[0, :, head], atol=1e-3)
    # the second layer's heads, with the sink and, where tokens are dropped, one in their place
    extra = int(compensates)
    assert own.tokens_read[1].tolist() == [SINK + 5 + extra, CONTEXT, SINK + 2 + extra]


@pytest.mark.parametrize("spans", [[CONTEXT] * 3, [CONTEXT - SINK] * 3])
def test_with_everything_read_it_is_the_dense_attention(spans):
    query, key, value = tensors()
    own = HeadSpans(torch.tensor([spans, spans]), SINK, CONTEXT, compensates=True)
    found, _ = own.attend(dense, LAYER, query, key, value, None, scaling=0.3)
    assert torch.equal(found, dense(LAYER, query, key, value, None, scaling=0.3)[0])


def test_one_token_stands_for_equal_ones_exactly():
    """Where all dropped tokens are alike, the compensation token is no loss."""
    query, key, value = tensors()
    for x in (key, value):
        x[:, :, SINK:CONTEXT] = x[:, :, SINK : SINK + 1].clone()
    own = HeadSpans(torch.zeros(2, 3, dtype=torch.int64), SINK, CONTEXT, compensates=True)
    found, _ = own.attend(dense, LAYER, query, key, value, None, scaling=0.3)
    expected = dense(LAYER, query, key, value, None, scaling=0.3)[0]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
