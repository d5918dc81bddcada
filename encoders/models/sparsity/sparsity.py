"""Which keys each query of a prefill reads: the role, and the choice of all.

Knows tensors only. A choice becomes a mask of the attention function
(`encoders/models/attention.py`), which is the exact reference of a method: what is left out has no
weight, and nothing is saved yet but in the count of pairs.

Shapes: Hq query heads, H KV heads, n queries, S keys, Dh head width.
"""

from typing import Protocol

import torch
from torch import Tensor

from encoders.errors import UserError


class Sparsity(Protocol):
    """A part of conf/sparsity/."""

    @property
    def is_dense(self) -> bool:
        """True if every query reads every key before it."""
        ...

    def choose(self, query: Tensor, key: Tensor, scaling: float) -> Tensor | None:
        """bool [Hq, n, S]: the keys that each query reads; None: all. Later keys do not count, and
        no query is left without a key.

        query: [Hq, n, Dh], the last n tokens of the context. key: [H, S, Dh]. Both as the products
        of attention take them.
        """
        ...


class NoSparsity:
    """Every query reads every key before it."""

    is_dense = True

    def choose(self, query: Tensor, key: Tensor, scaling: float) -> Tensor | None:
        return None


def earlier(count: int, length: int, device: torch.device) -> Tensor:
    """bool [n, S]: True where a key is not behind its query."""
    everything = torch.ones(count, length, dtype=torch.bool, device=device)
    return everything.tril_(length - count)


def or_all(chosen: Tensor) -> Tensor | None:
    """The choice [Hq, n, S], without later keys; None if no earlier one is left out."""
    causal = earlier(chosen.shape[1], chosen.shape[2], chosen.device)
    chosen = chosen & causal
    return None if torch.equal(chosen, causal.expand_as(chosen)) else chosen


def least_to_reach(shares: Tensor, threshold: float) -> Tensor:
    """bool [..., N]: as few of the largest shares [..., N] as sum up to the threshold, of shares
    that sum up to 1; of equal ones the first. A threshold of 1 takes all, also those of 0.
    """
    if threshold >= 1:
        return torch.ones_like(shares, dtype=torch.bool)
    ordered, places = torch.sort(shares, dim=-1, descending=True, stable=True)
    taken = ordered.cumsum(-1) - ordered < threshold
    return torch.zeros_like(taken).scatter_(-1, places, taken)


def refuse_no_share(name: str, share: float) -> None:
    """UserError on what is no share above 0."""
    if not 0 < share <= 1:
        raise UserError(f"sparsity.{name}={share} is no share; use 0 < {name} <= 1.")
