"""How much the output changes without a token (CAOTE, arXiv 2504.14051).

Without token i, the others get its share, so an output o = sum_j p_j v_j changes by
    c_i = p_i / (1 - p_i) |o - v_i|
p is any other score, made to sum up to 1. With the attention of one query, c_i is exact.
Cost: Dh products a token and KV head beside those of the other score.
"""

import torch
from torch import Tensor

from encoders.models.eviction.accumulated_attention import AccumulatedAttention
from encoders.models.eviction.schema import EvictionScore


class OutputError(EvictionScore):
    """base: the score that weighs the values; None: accumulated attention."""

    def __init__(self, *, base: EvictionScore | None = None) -> None:
        self._base = base or AccumulatedAttention()
        self.settings = f"output_error of {self._base.settings}"

    def __call__(self, shares: Tensor, keys: Tensor, values: Tensor, layer: int) -> Tensor:
        scores = self._base(shares, keys, values, layer).clamp(min=0)
        tiny = torch.finfo(torch.float32).tiny
        parts = scores / scores.sum(1, keepdim=True).clamp(min=tiny)  # [H, S]
        numbers = values.float()
        output = parts[:, None] @ numbers  # [H, 1, Dh]
        return parts / (1 - parts).clamp(min=tiny) * (numbers - output).norm(dim=2)
