"""Late interaction: compares a question and a line token by token.

Knows vectors; no text, no model. MaxSim, after ColBERT (Khattab and Zaharia, arXiv 2004.12832):
    score(q, d) = 1/n * sum over i of max over j of <q_i, d_j>
with unit vectors q_1..q_n of the question's tokens and d_1..d_m of the line's. ColBERT sums; the
mean keeps the score a cosine. ColBERT's tokens come from a model that was trained for this score;
those of a sentence encoder do not.
"""

from torch import Tensor


def maxsim(question: Tensor, line: Tensor) -> float:
    """question: [n, E], line: [m, E], unit rows. 0 if one of them has no token."""
    if not len(question) or not len(line):
        return 0.0
    return float((question @ line.T).amax(dim=1).mean())
