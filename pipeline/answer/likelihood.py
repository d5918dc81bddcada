"""Log-likelihoods of possible answers. Knows no reader and no cache.

A word behind a space is another token than the same word at the beginning, and models differ in
which of the two they learned as an answer. So every option is scored in both spellings, and the
likelier one counts.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from encoders.models.backbone import Backbone


def log_likelihood(log_probs: Tensor, ids: Sequence[int], stops: Iterable[int] = ()) -> float:
    """Log-likelihood of an answer.

    log_probs: [m, V], m > n: log-probabilities at each of the answer's n positions, and at the one
    behind it.
    ids: n token ids; for none the value is that of an empty answer. stops: token ids that end an
    answer; empty = the end is not counted.
    """
    tokens = torch.tensor(list(ids), dtype=torch.int64, device=log_probs.device)
    total = log_probs[: len(ids)].gather(1, tokens[:, None]).sum()
    ends = sorted(stops)
    if ends:
        total = total + log_probs[len(ids), ends].logsumexp(0)
    return float(total)


def spellings(backbone: Backbone, options: Sequence[str]) -> list[list[int]]:
    """Token ids of each option without and with a leading space: [2 * len(options)] lists."""
    return [backbone.prompt.ids(space + option) for option in options for space in ("", " ")]


def likelier_spellings(values: Sequence[float]) -> list[float]:
    """The larger value of each option's two `spellings`."""
    return [max(values[i : i + 2]) for i in range(0, len(values), 2)]
