"""A context whose older part lies in the host's memory, and the newest part on the device with the
model.

After HGCA (arXiv 2507.03153): attention to both parts is computed apart, where each lies, and
merged by the logarithms of the sums of exponentials (log-sum-exp, s):
    out = (e^(s_d) out_d + e^(s_h) out_h) / (e^(s_d) + e^(s_h))
So a device holds a part of a context alone, and a layer sends queries to the host and gets as many
outputs and one s for each back: no key moves. HGCA reads a sparse part on the host; this reads all,
so the result is that of dense attention, but for rounding in float32. Cost: the products of the
host's part run at its speed. On a CPU both parts are in the same memory, and it costs the merge.
Knows tensors and rotary tables; no model.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from encoders.models.context.part_attention import logits_of, weighted
from encoders.models.context.schema import ContextAttention


class HostContext(ContextAttention):
    """The first tokens behind the sink, for a context of one row without padding."""

    def __init__(self, keys: Tensor, values: Tensor, sink: int) -> None:
        """keys, values: [L, 1, H, M, Dh] memory of the host, in which `filled` tokens of M lie.
        sink: tokens before them, which the device has."""
        self.keys, self.values, self.sink = keys, values, sink
        self.filled = 0

    @property
    def room(self) -> int:
        """Tokens for which there is memory left."""
        return int(self.keys.shape[3]) - self.filled

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
        """key, value: those on the device; the last n are those of the new tokens."""
        if not self.filled:
            return attend(module, query, key, value, mask, **kwargs)
        layer, scaling = module.layer_idx, kwargs["scaling"]
        keys, values = (x[layer, :, :, : self.filled] for x in (self.keys, self.values))
        theirs = _part(query.to(keys.device), keys, values, scaling, has_new=False)
        parts = [_part(query, key, value, scaling), tuple(x.to(query.device) for x in theirs)]
        sums = torch.stack([one for _, one in parts])
        shares = torch.softmax(sums, 0)  # [2, 1, n, Hq]
        out = sum(share[..., None] * own for share, (own, _) in zip(shares, parts, strict=True))
        return out.to(value.dtype), None

    def whole_keys(self, layer: int, key: Tensor) -> Tensor:
        """[1, H, S, Dh]: keys of the whole context in order. key: those on the device."""
        host = self.keys[layer, :, :, : self.filled].to(key.device)
        return torch.cat([key[:, :, : self.sink], host, key[:, :, self.sink :]], dim=2)


def _part(
    query: Tensor, key: Tensor, value: Tensor, scaling: float, *, has_new: bool = True
) -> tuple[Tensor, Tensor]:
    """Attention to some keys alone, [1, n, Hq, Dh] float32, and its log-sum-exp [1, n, Hq]."""
    logits = logits_of(query, key, scaling, has_new=has_new)  # [1, H, G, n, S]
    out = weighted(torch.softmax(logits, -1), value.float())
    return out, logits.logsumexp(-1).flatten(1, 2).transpose(1, 2)
