"""Attention functions that transformers calls by name: torch's fused kernels with less overhead,
and blocks of plain products where a processor multiplies bfloat16 much faster than those kernels
do. `register` adds them to transformers through its public interfaces.

Knows tensors only: no model, no cache, no question. To observe the attention, pass a `listener` to
the decoder's call. To share the forms of a mask among the layers of a pass, pass `masks={}`. To let
queries read a part of the keys, pass a `sparsity`, for one context alone; to hide the first keys
from single heads, `hidden`: bool [L, Hq, S]; to read a context in another way, `context_attention`
(context/schema.py). `chunks` are those of position/dual_chunk.py.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import encoders.models.torchvision_ops  # noqa: F401  (first: transformers imports torchvision)

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from encoders.models.context.schema import ContextAttention
from encoders.models.position.dual_chunk import ChunkQueries
from encoders.models.sparsity.sparsity import Sparsity, earlier

from transformers import AttentionInterface  # isort: skip
from transformers.integrations.sdpa_attention import sdpa_attention_forward  # isort: skip
from transformers.masking_utils import AttentionMaskInterface, eager_mask, sdpa_mask  # isort: skip

# A listener gets (layer, query [B, Hq, n, Dh], key [B, H, S, Dh], scaling) of every attention call.
# The keys are those that the last query attends to, which are the last S of the context. B is 1
# except for batched contexts.
Listener = Callable[[int, Tensor, Tensor, float], None]

_FOLDED = 1 << 20  # entries of a mask up to which it is repeated for every query head of a group
# scores of a block at most, so that they stay in the processor's caches between products
_SCORES = 3 << 20
# queries of a block at most: the keys of a causal block reach to those of its last query
_ROWS = 256
_FEW = 8  # queries below which a block is not worth its overhead


def _with_listener(
    attend: Callable[..., Any], attend_sparsely: Callable[..., Any]
) -> Callable[..., Any]:
    """An attention function that first spreads queries and keys over the `chunks` among its keyword
    arguments, and calls the `listener`, where there are any. `context_attention` among them says
    how the context is read; the listener still gets all keys.
    """

    def listening(
        module: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        **kwargs: Any,
    ) -> Any:
        listener: Listener | None = kwargs.pop("listener", None)
        chunks: ChunkQueries | None = kwargs.pop("chunks", None)
        sparsity: Sparsity | None = kwargs.pop("sparsity", None)
        hidden: Tensor | None = kwargs.pop("hidden", None)
        context: ContextAttention | None = kwargs.pop("context_attention", None)
        if chunks is not None and (listener is not None or not chunks.is_one_chunk):
            plain = query, key
            query, key = chunks.spread(query, key)
        if listener is not None:
            layer: int = module.layer_idx
            whole = key if context is None else context.whole_keys(layer, key)
            window: int | None = kwargs.get("sliding_window")  # None in layers with full attention
            read = whole if window is None else whole[:, :, -window:]
            listener(layer, query, read, kwargs["scaling"])
        if chunks is not None and listener is not None and chunks.is_one_chunk:
            query, key = plain  # the same products as without chunks
        if sparsity is not None:
            reads = sparsity.choose(query[0], key[0], kwargs["scaling"])
            if reads is not None:
                return attend_sparsely(module, query, key, value, reads, **kwargs)
        if hidden is not None:
            reads = earlier(query.shape[2], key.shape[2], query.device).repeat(query.shape[1], 1, 1)
            own = ~hidden[module.layer_idx].to(query.device)
            reads[..., : hidden.shape[2]] &= own[:, None]
            return attend_sparsely(module, query, key, value, reads, **kwargs)
        if context is not None:
            return context.attend(attend, module, query, key, value, attention_mask, **kwargs)
        return attend(module, query, key, value, attention_mask, **kwargs)

    return listening


@dataclass
class _MaskForms:
    """The forms of one mask that all layers of a pass share."""

    mask: Tensor  # bool [B or 1, 1, n, S]; a reference keeps its id() unique
    numbers: Tensor  # the mask in the model's dtype: 0 or minus infinity
    folded: Tensor | None = None
    # per query: number of keys before the first masked one
    starts: list[int] = field(default_factory=list)
    # per query: number of keys up to and including the last unmasked one
    ends: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, mask: Tensor, dtype: torch.dtype) -> "_MaskForms":
        return cls(mask, torch.zeros(mask.shape, dtype=dtype).masked_fill_(~mask, -torch.inf))

    def for_all(self, group: int) -> Tensor:
        """The numbers for every query head of a group, one head after another: [B or 1, 1, group *
        n, S].
        """
        if self.folded is None:
            self.folded = self.numbers.repeat(1, 1, group, 1)
        return self.folded

    def measure(self) -> None:
        """Compute `starts` and `ends`."""
        length = self.mask.shape[-1]
        places = torch.arange(length, dtype=torch.int32)
        self.starts = places.masked_fill(self.mask.all(0)[0], length).amin(-1).tolist()
        self.ends = (places + 1).masked_fill(~self.mask.any(0)[0], 0).amax(-1).tolist()


def _attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **kwargs: Any
) -> Any:
    """torch's fused attention as transformers calls it; on a CPU the same sums with less overhead:
    - The query heads that share a key head are stacked, instead of copying keys and values for each
      (one token after 1,200 in bfloat16: a sixth of the time).
    - The mask becomes numbers once a pass, not once a layer.
    - In bfloat16, one product serves several contexts that are contiguous in memory.
    - In bfloat16, blocks of plain matrix products with scores rounded to bfloat16 replace the fused
      kernel. They take half to two thirds of the time on a processor with AVX-512 BF16, whose fused
      kernel computes in float32.

    query [B, Hq, n, Dh], key and value [B, H, S, Dh], mask bool [B or 1, 1, n, S]; returns [B, n,
    Hq, Dh] and None.
    """
    mask_forms: dict[int, _MaskForms] = kwargs.pop("masks", {})
    batch, heads, count, width = query.shape
    if (
        query.device.type != "cpu"
        or (mask is not None and mask.dtype != torch.bool)
        or kwargs.get("dropout")
    ):
        return sdpa_attention_forward(module, query, key, value, mask, **kwargs)
    several = count >= _FEW
    causal = (
        getattr(module, "is_causal", True)
        if kwargs.get("is_causal") is None
        else kwargs["is_causal"]
    )
    half = query.dtype == torch.bfloat16
    if mask is None and count > 1 and (causal or not (half and several)):
        return sdpa_attention_forward(module, query, key, value, mask, **kwargs)
    forms = None if mask is None else _forms_of(mask, query.dtype, mask_forms)
    group = heads // key.shape[1]
    if (
        half
        and forms is not None
        and _are_contiguous(key, value)
        and heads * count * key.shape[2] * batch <= _SCORES
    ):
        return _attend_side_by_side(
            query * kwargs["scaling"], key, value, forms.for_all(group)
        ), None
    if half and several:
        return _attend_in_blocks(query, key, value, kwargs["scaling"], forms), None
    if group == 1 or (mask is not None and group * mask[0].numel() > _FOLDED):
        return sdpa_attention_forward(
            module, query, key, value, None if forms is None else forms.numbers, **kwargs
        )
    folded = query.reshape(batch, heads // group, group * count, width)
    out = scaled_dot_product_attention(
        folded, key, value, None if forms is None else forms.for_all(group), scale=kwargs["scaling"]
    )
    return out.view(batch, heads, count, -1).transpose(1, 2).contiguous(), None


def _attend_sparsely(
    module: Any, query: Tensor, key: Tensor, value: Tensor, reads: Tensor, **kwargs: Any
) -> Any:
    """torch's attention under a mask of each head. reads: bool [Hq, n, S], without later keys."""
    kwargs.pop("masks", None)
    return sdpa_attention_forward(module, query, key, value, reads[None], **kwargs)


def _forms_of(mask: Tensor, dtype: torch.dtype, mask_forms: dict[int, _MaskForms]) -> _MaskForms:
    """The forms of a mask, from this pass's dictionary or new in it."""
    if id(mask) not in mask_forms:
        mask_forms[id(mask)] = _MaskForms.of(mask, dtype)
    return mask_forms[id(mask)]


def _are_contiguous(key: Tensor, value: Tensor) -> bool:
    """True for several contexts that are contiguous in memory."""
    return len(key) > 1 and key.is_contiguous() and value.is_contiguous()


def _attend_in_blocks(
    query: Tensor, key: Tensor, value: Tensor, scaling: float, forms: _MaskForms | None
) -> Tensor:
    """softmax(scaling * q k^T + mask) v in blocks; returns [B, n, Hq, Dh]. Without a mask, a block
    is several whole key heads if they fit. Else it is some queries of one key head, with the keys
    that they attend to.
    """
    batch, heads, count, width = query.shape
    kv_heads, length = key.shape[1], key.shape[2]
    group = heads // kv_heads
    scaled = query * scaling
    if forms is None and 2 * group * count * length <= _SCORES:
        out = _attend_whole_heads(
            scaled.reshape(batch * kv_heads, group * count, width),
            key.flatten(0, 1),
            value.flatten(0, 1),
        )
        return out.view(batch, heads, count, -1).transpose(1, 2).contiguous()
    if forms is not None and not forms.ends:
        forms.measure()
    rows = max(1, min(count, _ROWS, _SCORES // (group * length)))
    # one buffer for all blocks, because a new one would be faulted in every time
    buffer = query.new_empty(group * rows * length)
    out = query.new_empty((batch, count, heads, value.shape[-1]))
    for row, head in product(range(batch), range(kv_heads)):
        keys, values, own = (
            key[row, head].t(),
            value[row, head],
            slice(head * group, (head + 1) * group),
        )
        for first in range(0, count, rows):
            block = slice(first, min(first + rows, count))
            queries = scaled[row, own, block].reshape(-1, width)
            end = length if forms is None else max(forms.ends[block])
            scores = buffer[: len(queries) * end].view(-1, end)
            torch.mm(queries, keys[:, :end], out=scores)
            if forms is not None and (whole := min(forms.starts[block])) < end:
                hidden = forms.numbers[row % len(forms.numbers), 0, block, whole:end]
                scores.view(group, -1, end)[..., whole:].add_(hidden)
            torch.softmax(scores, -1, out=scores)
            out[row, block, own] = (
                torch.mm(scores, values[:end]).view(group, -1, value.shape[-1]).transpose(0, 1)
            )
    return out


def _attend_side_by_side(query: Tensor, key: Tensor, value: Tensor, numbers: Tensor) -> Tensor:
    """Attention of a few scaled queries in each of several contexts with contiguous keys and
    values; returns [B, n, Hq, Dh]. One product serves all contexts: a third of the fused kernel's
    time for eight contexts of 1,200 tokens.
    """
    batch, heads, count, width = query.shape
    kv_heads, length = key.shape[1], key.shape[2]
    scores = torch.bmm(
        query.reshape(batch * kv_heads, -1, width), key.flatten(0, 1).transpose(1, 2)
    )
    scores.view(batch, kv_heads, -1, length).add_(numbers)
    torch.softmax(scores, -1, out=scores)
    out = torch.bmm(scores, value.flatten(0, 1))
    return out.view(batch, heads, count, -1).transpose(1, 2).contiguous()


def _attend_whole_heads(scaled: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Attention of [N, n, Dh] queries to all of [N, S, Dh] keys, a few of the N at a time; returns
    [N, n, Dh].
    """
    number, count, _ = scaled.shape
    step = min(number, _SCORES // (count * keys.shape[1]))
    buffer = scaled.new_empty((step, count, keys.shape[1]))
    out = scaled.new_empty((number, count, values.shape[-1]))
    for first in range(0, number, step):
        block = slice(first, min(first + step, number))
        scores = buffer[: block.stop - first]
        torch.bmm(scaled[block], keys[block].transpose(1, 2), out=scores)
        torch.softmax(scores, -1, out=scores)
        torch.bmm(scores, values[block], out=out[block])
    return out


def _attend_eagerly(module: Any, *args: Any, **kwargs: Any) -> Any:
    """Plain attention as the text model's own file defines it, because families differ (attention
    sinks, soft caps).
    """
    kwargs.pop("masks", None)
    return sys.modules[type(module).__module__].eager_attention_forward(module, *args, **kwargs)


def _attend_sparsely_and_eagerly(
    module: Any, query: Tensor, key: Tensor, value: Tensor, reads: Tensor, **kwargs: Any
) -> Any:
    """The same in plain attention, which takes its mask as numbers."""
    least = torch.finfo(query.dtype).min
    numbers = torch.zeros(reads.shape, dtype=query.dtype, device=query.device)
    return _attend_eagerly(
        module, query, key, value, numbers.masked_fill_(~reads, least)[None], **kwargs
    )


# Names of the decoder's attention in transformers: torch's fused kernels, or plain matrix products
# (slow; for comparison). Others have no listener, and an answer without a listener cites nothing.
ATTENTIONS = {"sdpa": "reelbank_sdpa", "eager": "reelbank_eager"}


def register() -> None:
    """Add the attention functions to transformers. Call it before loading a model; a second call
    changes nothing.
    """
    AttentionInterface.register(ATTENTIONS["sdpa"], _with_listener(_attend, _attend_sparsely))
    AttentionInterface.register(
        ATTENTIONS["eager"], _with_listener(_attend_eagerly, _attend_sparsely_and_eagerly)
    )
    # a custom attention without a mask function of its own gets no mask
    AttentionMaskInterface.register(ATTENTIONS["sdpa"], sdpa_mask)
    AttentionMaskInterface.register(ATTENTIONS["eager"], eager_mask)
