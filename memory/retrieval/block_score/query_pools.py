"""Which queries of a question search: one for all its tokens, or each token's own.

Shapes: n tokens of the question, L layers, Hq query heads, Dh head width.
"""

import torch
from torch import Tensor


class MeanQuery:
    """The mean of all tokens (ReKV, arXiv 2503.00540)."""

    def __call__(self, queries: Tensor) -> Tensor:
        """[n, L, Hq, Dh] -> [1, L, Hq, Dh]."""
        return queries.mean(0, keepdim=True)


class LastQuery:
    """The last token's: it has seen the whole question, and the answer begins behind it."""

    def __call__(self, queries: Tensor) -> Tensor:
        """[n, L, Hq, Dh] -> [1, L, Hq, Dh]."""
        return queries[-1:]


class ActivationBias:
    """Tokens that stand out count more, after the probe-query of ActQKV (arXiv 2502.13542).

    w_i = |q_i - mean q|^2 / sum over j of |q_j - mean q|^2, for each layer and head; the pooled
    query is sum of w_i q_i. Where all tokens are equal, it is their mean.
    """

    def __call__(self, queries: Tensor) -> Tensor:
        """[n, L, Hq, Dh] -> [1, L, Hq, Dh]."""
        bias = (queries - queries.mean(0, keepdim=True)).square().sum(-1, keepdim=True)
        total = bias.sum(0, keepdim=True)
        even = torch.full_like(bias, 1 / len(queries))
        return (torch.where(total > 0, bias / total, even) * queries).sum(0, keepdim=True)


class EachToken:
    """Every token searches on its own, and each has one vote (TokenSelect, arXiv 2411.02886, votes
    so over heads). Cost: n times the products of one query.
    """

    def __call__(self, queries: Tensor) -> Tensor:
        """[n, L, Hq, Dh], as they are."""
        return queries
