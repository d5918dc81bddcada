"""Tokens of frames that deep layers do not read, after FastV (arXiv 2403.06764) and PyramidDrop
(arXiv 2410.17247).

Knows tensors only: no model, no question, no policy. The first `after` layers read a context whole.
The last of them ranks its tokens between the sink and the question by the attention of the last
query of a pass, averaged over the heads:
    score(j) = 1 / Hq * sum over h of softmax_i(scaling <q_h, k_i>)(j)
The layers behind read ceil(share * n) of these n tokens, those with the largest scores.
FastV drops hidden states while the whole prompt is prefilled. Here frames are prefilled, or were
stored, before there is a question, so all their keys and values exist; what is dropped are the
reads of the question and of the answer. They are really left out: a layer gathers the keys and
values that it reads, and multiplies no others.
Cost: the scores of one query in one layer; in each layer behind, a copy of `share` of the keys and
values, and `share` of the products.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from encoders.models.context.schema import ContextAttention
from encoders.models.sparsity.sparsity import earlier


@dataclass(eq=False)
class PrunedTokens(ContextAttention):
    """What each layer reads of one context. For contexts of one row without padding.

    A pass of several tokens ranks anew, as a question does; single tokens, as those of an answer,
    read what the pass before chose.
    """

    layers: int  # of the model
    after: int  # layers that read everything; as many as the model has: nothing is left out
    share: float  # of the tokens between sink and question, that the other layers read
    sink: int  # tokens
    context: int  # tokens, the sink included
    # [n] rising places of the tokens between sink and question that are read; None: not ranked yet
    places: Tensor | None = field(default=None, init=False)
    # a mask of this pass, and its columns of what is read
    _columns: tuple[Tensor, Tensor] | None = field(default=None, init=False)

    @property
    def count(self) -> int:
        """Tokens between sink and question that deep layers read."""
        return math.ceil(self.share * (self.context - self.sink))

    @property
    def tokens_read(self) -> Tensor:
        """[L] int64: tokens of the context that each layer reads."""
        deep = torch.arange(self.layers) >= self.after
        return torch.where(deep, min(self.sink, self.context) + self.count, self.context)

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
        """Attention of a layer. attend: that of layers that read everything. query [1, Hq, n, Dh],
        key and value [1, H, S, Dh]; returns [1, n, Hq, Dh] and None."""
        layer, several = module.layer_idx, query.shape[2] > 1
        if self.count < self.context - self.sink:
            if layer == self.after - 1 and (several or self.places is None):
                self.places = self._rank(query[0, :, -1], key[0], kwargs["scaling"])
                self._columns = None
            if layer >= self.after and self.places is not None:
                rest = torch.arange(self.context, key.shape[2], device=key.device)
                sink = torch.arange(self.sink, device=key.device)
                read = torch.cat([sink, self.places.to(key.device), rest])
                key, value = key.index_select(2, read), value.index_select(2, read)
                mask = self._of_mask(mask, query, read)
        return attend(module, query, key, value, mask, **kwargs)

    def _rank(self, query: Tensor, key: Tensor, scaling: float) -> Tensor:
        """[count] rising places. query: [Hq, Dh], of the last token. key: [H, S, Dh]."""
        keys = key.float().repeat_interleave(len(query) // len(key), 0)
        shares = torch.softmax(scaling * (keys @ query.float()[..., None])[..., 0], -1).mean(0)
        own = shares[self.sink : self.context]
        best = torch.sort(own, descending=True, stable=True).indices[: self.count]
        return self.sink + best.sort().values

    def _of_mask(self, mask: Tensor | None, query: Tensor, read: Tensor) -> Tensor | None:
        """The columns of a mask [1, 1, n, S] for what is read; the same tensor for all layers of a
        pass."""
        if mask is None:
            if query.shape[2] == 1:
                return None
            length = int(read[-1]) + 1
            return earlier(query.shape[2], length, query.device)[None, None, :, read]
        if self._columns is None or self._columns[0] is not mask:
            self._columns = mask, mask[..., read]
        return self._columns[1]
