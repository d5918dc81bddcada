"""Attention as transformers calls it by name: torch's fused kernels with less work around them, and blocks of plain products
where a processor multiplies bfloat16 much faster than those kernels do. Registered through transformers' public interfaces.

Knows tensors only: no model, no cache, no question. Whoever wants to see what is attended to passes a `listener` along with the
decoder's call; whoever makes one pass through many layers passes `masks={}` along, in which what was made of a mask is kept.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import encoders.torchvision_ops  # noqa: F401  (first: transformers imports torchvision)

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from transformers import AttentionInterface  # isort: skip
from transformers.integrations.sdpa_attention import sdpa_attention_forward  # isort: skip
from transformers.masking_utils import AttentionMaskInterface, eager_mask, sdpa_mask  # isort: skip

# A listener gets (layer, query [B, Hq, n, Dh], key [B, H, S, Dh], scaling) of every attention call it was passed to: the
# keys that the last query attends to, which are the last S of the context. B is 1 but for stacked contexts.
Listener = Callable[[int, Tensor, Tensor, float], None]

_FOLDED = 1 << 20  # entries of a mask up to which it is written out for every query head of a group
_SCORES = 1 << 23  # scores that a block may have: about what the last cache holds, in bfloat16
_ROWS = 128  # queries in a block at most: the last keys of a causal block are those of its last query
_FEW = 8  # queries below which a block is not worth its overhead


def _listening(attend: Callable[..., Any]) -> Callable[..., Any]:
    """An attention function; a `listener` among the call's keyword arguments sees queries and keys first."""

    def listening(module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any) -> Any:
        listener: Listener | None = kwargs.pop("listener", None)
        if listener is not None:
            window: int | None = kwargs.get("sliding_window")  # None in layers that see everything
            listener(module.layer_idx, query, key if window is None else key[:, :, -window:], kwargs["scaling"])
        return attend(module, query, key, value, attention_mask, **kwargs)

    return listening


@dataclass
class _Seen:
    """What a pass makes of one of its masks, once for all layers."""

    mask: Tensor  # bool [B or 1, 1, n, S]; held, so that its identity stays its own
    numbers: Tensor  # the same in the model's dtype: 0 or minus infinity
    folded: Tensor | None = None  # the numbers for every query head of a group, one behind the other
    whole: int = 0  # keys before this one are seen by every query
    ends: list[int] = field(default_factory=list)  # of each query: how many keys come before its last one and with it

    @classmethod
    def of(cls, mask: Tensor, dtype: torch.dtype) -> "_Seen":
        return cls(mask, torch.zeros(mask.shape, dtype=dtype).masked_fill_(~mask, -torch.inf))

    def measure(self) -> None:
        """`whole` and `ends`."""
        length = self.mask.shape[-1]
        by_all = self.mask.flatten(0, 2).all(0)  # [S]
        self.whole = length if by_all.all() else int(by_all.int().argmin())
        places = torch.arange(1, length + 1, dtype=torch.int32)
        self.ends = (self.mask.any(0)[0] * places).amax(-1).tolist()


def _attend(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **kwargs: Any) -> Any:
    """torch's fused attention as transformers calls it; on a CPU the same sums with less work around them:
    - the query heads that share a key head stand one behind the other, instead of keys and values being copied for each (a
      token behind 1,200 in bfloat16: a sixth of the time)
    - the mask becomes numbers once a pass and not once a layer
    - in bfloat16 blocks of plain matrix products, whose scores are rounded to bfloat16 (half to two thirds of the time on a
      processor with AVX-512 BF16, whose fused kernel computes in float32)

    query [B, Hq, n, Dh], key and value [B, H, S, Dh], mask bool [B or 1, 1, n, S]; -> [B, n, Hq, Dh] and None."""
    made: dict[int, _Seen] = kwargs.pop("masks", {})
    batch, heads, count, width = query.shape
    if query.device.type != "cpu" or (mask is not None and mask.dtype != torch.bool) or kwargs.get("dropout"):
        return sdpa_attention_forward(module, query, key, value, mask, **kwargs)
    in_blocks = query.dtype == torch.bfloat16 and count >= _FEW
    causal = getattr(module, "is_causal", True) if kwargs.get("is_causal") is None else kwargs["is_causal"]
    if mask is None and count > 1 and (causal or not in_blocks):
        return sdpa_attention_forward(module, query, key, value, mask, **kwargs)
    seen = None
    if mask is not None:
        if id(mask) not in made:
            made[id(mask)] = _Seen.of(mask, query.dtype)
        seen = made[id(mask)]
    if in_blocks:
        return _in_blocks(query, key, value, kwargs["scaling"], seen), None
    group = heads // key.shape[1]
    if group == 1 or (mask is not None and group * mask[0].numel() > _FOLDED):
        return sdpa_attention_forward(module, query, key, value, None if seen is None else seen.numbers, **kwargs)
    if seen is not None and seen.folded is None:
        seen.folded = seen.numbers.repeat(1, 1, group, 1)
    folded = query.reshape(batch, heads // group, group * count, width)
    found = scaled_dot_product_attention(folded, key, value, None if seen is None else seen.folded, scale=kwargs["scaling"])
    return found.view(batch, heads, count, width).transpose(1, 2).contiguous(), None


def _in_blocks(query: Tensor, key: Tensor, value: Tensor, scaling: float, seen: _Seen | None) -> Tensor:
    """softmax(scaling * q k^T + mask) v over blocks of queries, each with all the keys that it sees; -> [B, n, Hq, Dh]."""
    batch, heads, count, width = query.shape
    kv_heads, length = key.shape[1], key.shape[2]
    group = heads // kv_heads
    if seen is not None and not seen.ends:
        seen.measure()
    keys, values = key.reshape(batch * kv_heads, length, width).transpose(1, 2), value.reshape(batch * kv_heads, length, -1)
    scaled = query * scaling
    step = max(1, min(_ROWS, count, _SCORES // (batch * heads * length)))
    buffers = query.new_empty((2, batch * heads * step * length))  # new ones for every block would be faulted in every time
    out = query.new_empty((batch, count, heads, value.shape[-1]))
    for first in range(0, count, step):
        stop = min(first + step, count)
        rows, end = stop - first, length if seen is None else max(seen.ends[first:stop])
        size = batch * heads * rows * end
        scores, shares = (part[:size].view(batch * kv_heads, group * rows, end) for part in buffers)
        torch.bmm(scaled[:, :, first:stop].reshape(batch * kv_heads, group * rows, width), keys[:, :, :end], out=scores)
        if seen is not None and seen.whole < end:
            hidden = seen.numbers[:, :, first:stop, seen.whole : end]  # [B or 1, 1, rows, ...]
            scores.view(batch, heads, rows, end)[..., seen.whole :].add_(hidden)
        torch.softmax(scores, -1, out=shares)
        found = torch.bmm(shares, values[:, :end])
        out[:, first:stop] = found.view(batch, heads, rows, -1).transpose(1, 2)
    return out


def _own_eager(module: Any, *args: Any, **kwargs: Any) -> Any:
    """Plain attention as the text model's own file defines it: families differ in it (attention sinks, soft caps)."""
    kwargs.pop("masks", None)
    return sys.modules[type(module).__module__].eager_attention_forward(module, *args, **kwargs)


# What the decoder's attention is called in transformers: torch's fused kernels, or plain matrix products (slow, to compare
# with). Others cannot be listened to, and an answer without a listener cites nothing.
ATTENTIONS = {"sdpa": "reelbank_sdpa", "eager": "reelbank_eager"}
AttentionInterface.register(ATTENTIONS["sdpa"], _listening(_attend))
AttentionInterface.register(ATTENTIONS["eager"], _listening(_own_eager))
AttentionMaskInterface.register(ATTENTIONS["sdpa"], sdpa_mask)  # without its own mask function a custom attention gets none
AttentionMaskInterface.register(ATTENTIONS["eager"], eager_mask)
