"""Attention by its definition, to compare with."""

from typing import Any

import torch
from torch import Tensor


def dense(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, *, scaling: float
) -> tuple[Tensor, None]:
    """Every head reads every token up to its own; [1, n, Hq, Dh]."""
    group, new, length = query.shape[1] // key.shape[1], query.shape[2], key.shape[2]
    keys, values = (x.repeat_interleave(group, 1) for x in (key, value))
    hidden = torch.ones(new, length, dtype=torch.bool).triu(length - new + 1)
    scores = (query @ keys.transpose(2, 3) * scaling).masked_fill(hidden, -torch.inf)
    return (scores.softmax(-1) @ values).transpose(1, 2), None
