"""A context of which each KV head keeps as many tokens as a budget holds, the best by a score.

H2O (arXiv 2306.14048) and CAOTE (arXiv 2504.14051) evict from a cache while it grows. Here the
context is the recalled one, and the question's tokens are the queries: they are at hand before
anything is evicted. In every layer, the context is looked at a chunk at a time, as in Locret (arXiv
2410.01805):

    kept <- the best `budget` tokens of kept and the next chunk, by score(softmax(q K) of both)

The beginning (the text before the first frame) is never evicted, and what is written behind the
context, as the question, always stays. Later tokens read what the question's tokens kept. With one
chunk, all tokens are compared at once. This is the reference: the buffer holds all tokens, and
never more than budget + chunk of them are looked at, which is what a cache on the device would
hold. Cost: (budget + chunk) / chunk times the products of the question with the context, once, and
budget / context of those of every later token.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from encoders.models.context.part_attention import logits_of, weighted
from encoders.models.context.schema import ContextAttention
from encoders.models.eviction.schema import EvictionScore


@dataclass(frozen=True, slots=True, eq=False)
class EvictedContext(ContextAttention):
    """For a context of one row without padding."""

    budget: int  # tokens that each KV head keeps, the sink included
    sink: int  # tokens that are never evicted
    context: int  # tokens, the sink included
    chunk: int  # tokens that are looked at beside those that are kept
    score: EvictionScore
    # layer -> [H, budget] int64 rising places of the tokens that it keeps
    places: dict[int, Tensor] = field(default_factory=dict, init=False)

    def attend(
        self,
        attend: Callable[..., Any],
        module: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        **kwargs: Any,
    ) -> Any:
        """The first tokens behind the context choose what is kept, in every pass that begins
        there."""
        if self.context <= max(self.budget, self.sink):
            return attend(module, query, key, value, mask, **kwargs)
        layer, scaling = module.layer_idx, kwargs["scaling"]
        if key.shape[2] - query.shape[2] == self.context or layer not in self.places:
            self.places[layer] = self._choose(layer, query, key, value, scaling)
        keys, values = (self._taken(x, self.places[layer]) for x in (key, value))
        logits = logits_of(query, keys, scaling)
        return weighted(torch.softmax(logits, -1), values), None

    def _choose(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float
    ) -> Tensor:
        """[H, budget] places, a chunk at a time."""
        heads, device = key.shape[1], key.device
        sink = torch.arange(self.sink, device=device).expand(heads, -1)
        places, room = sink[:, :0], max(0, self.budget - self.sink)
        for first in range(self.sink, self.context, self.chunk):
            fresh = torch.arange(first, min(first + self.chunk, self.context), device=device)
            places = torch.cat([places, fresh.expand(heads, -1)], dim=1)
            if places.shape[1] <= room:
                continue
            keys, values = (self._taken(x, torch.cat([sink, places], dim=1)) for x in (key, value))
            shares = torch.softmax(logits_of(query, keys, scaling), -1)[0].flatten(1, 2)
            scores = self.score(shares, keys[0], values[0], layer)
            own = scores[:, self.sink : self.sink + places.shape[1]]
            best = own.argsort(dim=1, descending=True, stable=True)[:, :room]
            places = places.gather(1, best.sort(dim=1).values)
        return torch.cat([sink, places], dim=1)

    def _taken(self, x: Tensor, places: Tensor) -> Tensor:
        """[1, H, k + m, Dh]: the tokens of each head at places [H, k], and the m behind the
        context."""
        index = places[None, :, :, None].expand(1, -1, -1, x.shape[3])
        return torch.cat([x.gather(2, index), x[:, :, self.context :]], dim=2)
