"""The sum of the attention that a token gets (H2O, arXiv 2306.14048):
    h_i = sum over the queries q of softmax(q K)_i
Cost: nothing beside the attention itself.
"""

from torch import Tensor

from encoders.models.eviction.schema import EvictionScore


class AccumulatedAttention(EvictionScore):
    """Of all queries of a KV head alike."""

    settings = "accumulated_attention"

    def __call__(self, shares: Tensor, keys: Tensor, values: Tensor, layer: int) -> Tensor:
        return shares.sum(1)
