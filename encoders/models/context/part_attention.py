"""Attention of the newest tokens to a part of the keys, in plain products. Knows tensors only.

Shapes: H KV heads, G query heads of each, n new tokens, S keys.
"""

import torch
from torch import Tensor


def logits_of(query: Tensor, keys: Tensor, scaling: float, *, has_new: bool = True) -> Tensor:
    """[1, H, G, n, S] float32: scaled products, minus infinity towards later tokens. query [1, H *
    G, n, Dh], keys [1, H, S, Dh]. has_new: the last n keys are those of the new tokens."""
    new, heads = query.shape[2], keys.shape[1]
    folded = (query * scaling).unflatten(1, (heads, -1)).flatten(2, 3)  # [1, H, G * n, Dh]
    logits = (folded @ keys.transpose(2, 3)).float().unflatten(2, (-1, new))
    if has_new:
        later = torch.ones(new, new, dtype=torch.bool, device=query.device).triu_(1)
        logits[..., keys.shape[2] - new :].masked_fill_(later, -torch.inf)
    return logits


def weighted(shares: Tensor, values: Tensor) -> Tensor:
    """[1, n, H * G, Dh]: sums of the values [1, H, S, Dh] by shares [1, H, G, n, S]."""
    new = shares.shape[3]
    sums = shares.to(values.dtype).flatten(2, 3) @ values
    return sums.unflatten(2, (-1, new)).flatten(1, 2).transpose(1, 2)
