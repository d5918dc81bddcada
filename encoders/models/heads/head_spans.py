"""Heads that read a part of a context: its beginning, its newest tokens, and one token in place of
the others.

Knows tensors only: no model, no question, no policy. RazorAttention (arXiv 2407.15891) lets few
heads read everything. For the others, the D dropped tokens become a compensation token with the
mean key k' and the mean value v' of the keys behind rotary embedding:
    out = (D e^(q.k') v' + sum_i e^(q.k_i) v_i) / (D e^(q.k') + sum_i e^(q.k_i)),  i: those left
DuoAttention (arXiv 2410.10819) drops them without one. MoA (arXiv 2406.14909) lets what is left
grow with the context.
This is the reference: the cache holds all tokens of all heads. A head that reads s of S tokens
costs s / S of the products, and a cache that held only these would have s / S of the bytes.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from encoders.models.context.part_attention import logits_of, weighted
from encoders.models.context.schema import ContextAttention


@dataclass(frozen=True, slots=True, eq=False)
class HeadSpans(ContextAttention):
    """What each KV head reads of one context: the first `sink` tokens, the newest `spans[l, h]` of
    the others, and everything behind the context. For contexts of one row without padding.
    """

    spans: Tensor  # [L, H] int64 tokens
    sink: int  # tokens
    context: int  # tokens, the sink included
    compensates: bool  # the others become a compensation token; False: they are dropped
    # layer, tokens that are dropped, numbers of a key -> mean key and value [1, heads, 1, Dh] of
    # those heads. Keys are wider from the second chunk on (position/dual_chunk.py)
    _means: dict[tuple[int, int, int], tuple[Tensor, Tensor]] = field(
        default_factory=dict, init=False
    )

    @property
    def tokens_read(self) -> Tensor:
        """[L, H] int64: tokens of the context that each head reads, compensation tokens included.
        A cache without the others would hold so many."""
        dropped = self._dropped()
        return self.context - dropped + (dropped > 0).long() * int(self.compensates)

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
        """Attention of a layer. attend: that of heads that read everything. query [1, Hq, n, Dh],
        key and value [1, H, S, Dh]; returns [1, n, Hq, Dh] and None."""
        layer, group = module.layer_idx, query.shape[1] // key.shape[1]
        dropped = self._dropped()[layer]
        if not bool(dropped.any()):
            return attend(module, query, key, value, mask, **kwargs)
        out = query.new_empty((1, query.shape[2], query.shape[1], value.shape[-1]))
        for count in dropped.unique().tolist():
            heads = (dropped == count).nonzero()[:, 0]
            own = (heads[:, None] * group + torch.arange(group)).flatten()
            parts = query[:, own], key[:, heads], value[:, heads]
            if count:
                out[:, :, own] = self._attend_part(layer, count, *parts, kwargs["scaling"])
            else:
                out[:, :, own] = attend(module, *parts, mask, **kwargs)[0]
        return out, None

    def _dropped(self) -> Tensor:
        """[L, H] int64: tokens of the context that each head does not read."""
        return (self.context - self.sink - self.spans.clamp(min=0)).clamp(min=0)

    def _attend_part(
        self, layer: int, count: int, query: Tensor, key: Tensor, value: Tensor, scaling: float
    ) -> Tensor:
        """[1, n, Hq, Dh] of heads that drop `count` tokens behind the sink."""
        edge = self.sink + count
        place = layer, count, key.shape[-1]
        if place not in self._means:
            means = (x[:, :, self.sink : edge].float().mean(2, keepdim=True) for x in (key, value))
            mean_key, mean_value = means
            self._means[place] = mean_key.to(key.dtype), mean_value.to(value.dtype)
        extra = self._means[place] if self.compensates else (key[:, :, :0], value[:, :, :0])
        keys, values = (
            torch.cat([own, x[:, :, : self.sink], x[:, :, edge:]], dim=2)
            for own, x in zip(extra, (key, value), strict=True)
        )
        logits = logits_of(query, keys, scaling)
        if self.compensates:
            logits[..., 0] += math.log(count)
        return weighted(torch.softmax(logits, -1), values)
