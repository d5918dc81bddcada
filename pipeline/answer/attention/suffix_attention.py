"""The attention that the last tokens of a context pay to all of it, from the queries and keys of a
layer. Knows tensors only.

Shapes: Hq query heads, H KV heads, n last tokens, S tokens of the context with them, Dh head width.
"""

import torch
from torch import Tensor


def suffix_scores(query: Tensor, key: Tensor) -> Tensor:
    """[Hq, n, S]: products of the last tokens' queries with all keys; -inf for later tokens.

    query: [Hq, n, Dh], times the scaling. key: [H, S, Dh]. Both at their positions.
    """
    count, length = query.shape[1], key.shape[1]
    later = torch.ones(count, length, dtype=torch.bool).triu(length - count + 1)
    group = query.shape[0] // key.shape[0]
    scores = query @ key.repeat_interleave(group, 0).transpose(1, 2)
    return scores.masked_fill_(later.to(scores.device), -torch.inf)


def mass_of_parts(scores: Tensor, parts: Tensor, count: int) -> Tensor:
    """[Hq, count]: the share of attention that each part of a context gets, mean over the last
    tokens; tokens of no part get the rest of 1.

    scores: of `suffix_scores`. parts: [S] int64 number of each token's part, -1 for none.
    """
    shares = torch.softmax(scores, -1).mean(1)  # [Hq, S]
    sums = shares.new_zeros(shares.shape[0], count + 1)
    return sums.index_add_(1, parts.to(shares.device) + 1, shares)[:, 1:]
