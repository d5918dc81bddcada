"""SampleAttention: columns that a sample of the queries looks at, and a window (arXiv 2406.15486).

1. Every so many queries are sampled, and their attention p is computed exactly.
2. c(j) = mean over the sampled queries of p(j). As few keys j with the largest c are kept for all
   queries as reach `threshold`: then the kept keys hold this share of the attention of the sampled
   queries, on average (their CRA; the paper's is the least over all queries, and not known at
   runtime).
3. Every query also keeps the keys of a window before it.

Cost: `sample` of the products of queries with keys for the columns; then the kept pairs. A mask
leaves the others out, so they are counted and not yet saved.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from encoders.errors import UserError
from encoders.models.sparsity.sparsity import earlier, least_to_reach, or_all, refuse_no_share


@dataclass(frozen=True)
class SampleAttention:
    """threshold: share of the sampled queries' attention that the kept columns hold; 1: all keys.
    sample: share of the queries that are sampled. window: share of the context before each query
    that it keeps, itself at least.
    """

    threshold: float = 0.95
    sample: float = 0.05
    window: float = 0.08

    def __post_init__(self) -> None:
        refuse_no_share("threshold", self.threshold)
        refuse_no_share("sample", self.sample)
        if not 0 <= self.window <= 1:
            raise UserError(f"sparsity.window={self.window} is no share; use 0 to 1.")

    @property
    def is_dense(self) -> bool:
        return self.threshold >= 1

    def choose(self, query: Tensor, key: Tensor, scaling: float) -> Tensor | None:
        heads, count, _ = query.shape
        length, causal = key.shape[1], earlier(count, key.shape[1], query.device)
        step = max(1, round(1 / self.sample))
        # the last query is one of them
        rows = torch.arange((count - 1) % step, count, step, device=query.device)
        keys = key.float().repeat_interleave(heads // len(key), 0)
        scores = query[:, rows].float() @ keys.transpose(1, 2) * scaling  # [Hq, r, S]
        columns = torch.softmax(scores.masked_fill_(~causal[rows], -torch.inf), -1).mean(1)
        kept = least_to_reach(columns, self.threshold)  # [Hq, S]
        near = max(1, math.ceil(self.window * length))
        return or_all(kept[:, None] | (causal & ~causal.tril(length - count - near)))
