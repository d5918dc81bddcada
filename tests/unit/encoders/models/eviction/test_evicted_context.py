"""What a budget keeps of a context: the best by the score, never more than was allowed, and all of
it where there is room."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from encoders.models.eviction.accumulated_attention import AccumulatedAttention
from encoders.models.eviction.evicted_context import EvictedContext
from encoders.models.eviction.output_error import OutputError
from encoders.models.eviction.schema import EvictionScore
from tests.support.plain_attention import dense

SINK, CONTEXT, NEW, WIDTH, HEADS, GROUP, SCALING = 3, 23, 4, 8, 2, 2, 0.6
LAYER = SimpleNamespace(layer_idx=1)


def tensors(new: int = NEW) -> tuple[Tensor, Tensor, Tensor]:
    chance = torch.Generator().manual_seed(0)
    key, value = torch.randn(2, 1, HEADS, CONTEXT + new, WIDTH, generator=chance)
    return torch.randn(1, HEADS * GROUP, new, WIDTH, generator=chance), key, value


def evicted(budget: int, chunk: int = 99, score: EvictionScore | None = None) -> EvictedContext:
    return EvictedContext(budget, SINK, CONTEXT, chunk, score or AccumulatedAttention())


def attended(own: EvictedContext, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    found, none = own.attend(dense, LAYER, query, key, value, None, scaling=SCALING)
    assert none is None
    return found


def kept_by(own: EvictedContext, *parts: Tensor) -> list[list[int]]:
    attended(own, *parts)
    return own.places[1].tolist()


@pytest.mark.parametrize("budget", [CONTEXT, CONTEXT + 5])
def test_a_budget_of_all_is_the_dense_attention(budget):
    query, key, value = tensors()
    own = evicted(budget, chunk=5)
    expected = dense(LAYER, query, key, value, None, scaling=SCALING)[0]
    assert torch.equal(attended(own, query, key, value), expected) and own.places == {}


def test_heads_keep_what_got_most_attention_and_read_only_that():
    query, key, value = tensors()
    own, budget = evicted(9), 9
    found = attended(own, query, key, value)
    new = torch.ones(NEW, CONTEXT + NEW, dtype=torch.bool).triu(CONTEXT + 1)
    for head in range(HEADS):
        group = slice(head * GROUP, (head + 1) * GROUP)
        scores = (query[0, group] @ key[0, head].T * SCALING).masked_fill(new, -torch.inf)
        heavy = scores.softmax(-1).sum((0, 1))[SINK:CONTEXT]  # H2O, over both queries' heads
        best = sorted((heavy.topk(budget - SINK).indices + SINK).tolist())
        assert own.places[1][head].tolist() == [*range(SINK), *best]
        left = [*range(SINK), *best, *range(CONTEXT, CONTEXT + NEW)]
        others = [place for place in range(CONTEXT) if place not in left]
        hidden = scores.index_fill(2, torch.tensor(others), -torch.inf)
        expected = (hidden.softmax(-1) @ value[0, head]).transpose(0, 1)
        torch.testing.assert_close(found[0, :, group], expected, atol=1e-5, rtol=1e-5)
    # later tokens read what the first ones kept
    query, key, value = (torch.cat([x, x[:, :, -1:] * 3], dim=2) for x in (query, key, value))
    before = own.places[1]
    assert attended(own, query[:, :, -1:], key, value).shape == (1, 1, HEADS * GROUP, WIDTH)
    assert own.places[1] is before


def test_the_token_goes_whose_removal_changes_the_output_least():
    """One query of one head, so that the error is exact: by removing each token in turn."""
    chance = torch.Generator().manual_seed(4)
    key, value = torch.randn(2, 1, 1, CONTEXT + 1, WIDTH, generator=chance)
    query = torch.randn(1, 1, 1, WIDTH, generator=chance)
    whole = dense(LAYER, query, key, value, None, scaling=SCALING)[0]
    changes = []
    for place in range(CONTEXT):
        left = [i for i in range(CONTEXT + 1) if i != place]
        less = dense(LAYER, query, key[:, :, left], value[:, :, left], None, scaling=SCALING)[0]
        changes.append(float((whole - less).norm()))
    shares = (query @ key.transpose(2, 3) * SCALING).softmax(-1)[0]
    scores = OutputError()(shares, key[0], value[0], 0)[0, :CONTEXT]
    torch.testing.assert_close(scores, torch.tensor(changes), atol=1e-5, rtol=1e-4)
    least = min(range(SINK, CONTEXT), key=changes.__getitem__)
    (kept,) = kept_by(evicted(CONTEXT - 1, score=OutputError()), query, key, value)
    assert kept == [place for place in range(CONTEXT) if place != least]
    (by_attention,) = kept_by(evicted(CONTEXT - 1), query, key, value)
    assert by_attention != kept  # the value decides


class Newest(EvictionScore):
    """A scorer from outside, which notes how many tokens it saw."""

    settings = "newest"

    def __init__(self) -> None:
        self.most = 0

    def __call__(self, shares: Tensor, keys: Tensor, values: Tensor, layer: int) -> Tensor:
        assert shares.shape == (HEADS, GROUP * NEW, keys.shape[1]) and layer == 1
        torch.testing.assert_close(shares.sum(2), torch.ones(HEADS, GROUP * NEW))
        self.most = max(self.most, keys.shape[1])
        return torch.arange(keys.shape[1]).float().expand(HEADS, -1)


@pytest.mark.parametrize("chunk", [1, 4, 99])
def test_a_score_from_outside_decides_and_never_sees_more_than_a_chunk_beside_the_budget(chunk):
    newest, budget = Newest(), 8
    kept = kept_by(evicted(budget, chunk, newest), *tensors())
    assert kept == [[*range(SINK), *range(CONTEXT - budget + SINK, CONTEXT)]] * HEADS
    assert newest.most == min(CONTEXT, budget + chunk) + NEW
    over = OutputError(base=newest)
    assert over.settings == "output_error of newest"
    assert len(kept_by(evicted(budget, chunk, over), *tensors())[0]) == budget


def test_small_chunks_keep_other_tokens_and_a_budget_below_the_beginning_keeps_that():
    together, apart = (kept_by(evicted(6, chunk), *tensors()) for chunk in (99, 1))
    assert [len(one) for one in apart] == [len(one) for one in together] == [6, 6]
    assert kept_by(evicted(0), *tensors()) == [[0, 1, 2]] * HEADS
