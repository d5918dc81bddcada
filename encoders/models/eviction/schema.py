"""The role of a score by which keys and values are evicted (conf/eviction_score/). Knows tensors
only.
"""

from typing import Protocol

from torch import Tensor


class EvictionScore(Protocol):
    """What a key and its value are worth. A scorer from outside, such as trained heads (Locret,
    arXiv 2410.01805), is a class with these two, named in `eviction_score._target_=`.
    """

    settings: str  # all that the scores depend on

    def __call__(self, shares: Tensor, keys: Tensor, values: Tensor, layer: int) -> Tensor:
        """[H, S] float32: the lowest ones are evicted first. shares: [H, Q, S] float32, of each of
        the Q queries of a KV head; they sum up to 1. keys, values: [H, S, Dh]; keys behind rotary
        embedding.
        """
        ...
