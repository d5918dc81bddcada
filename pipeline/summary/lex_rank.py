"""The sentences that say most of a text: LexRank, and maximal marginal relevance.

LexRank (Erkan and Radev, JAIR 22, 2004), the continuous form: a sentence is central when it is like
many central ones. MMR (Carbonell and Goldstein, SIGIR 1998): of sentences that say the same, one is
enough. Knows vectors; no text, no time.
"""

from collections.abc import Sequence

import numpy as np

_DAMPING = 0.15  # share of a jump to any sentence, as in LexRank's definition
_STEPS, _TOLERANCE = 100, 1e-9
_MOST_ROWS = 2000  # more are too many for one matrix: then every k-th counts for all


def centrality(rows: np.ndarray) -> np.ndarray:
    """[n] stationary probability of each sentence; sums to 1. rows: [n, E] unit or zero rows."""
    count = len(rows)
    if count == 0:
        return np.zeros(0)
    witnesses = rows[:: -(-count // _MOST_ROWS)].astype(float)
    if len(witnesses) < count:
        scores = np.maximum(rows.astype(float) @ witnesses.T, 0.0) @ centrality(witnesses)
        total = float(scores.sum())
        return scores / total if total > 0 else np.full(count, 1 / count)
    likeness = np.maximum(witnesses @ witnesses.T, 0.0)  # [n, n]
    np.fill_diagonal(likeness, 0.0)
    sums = likeness.sum(axis=1, keepdims=True)
    uniform = np.full((count, count), 1 / count)
    chain = np.divide(likeness, sums, out=uniform, where=sums > 0)
    rank = np.full(count, 1 / count)
    for _ in range(_STEPS):
        following = _DAMPING / count + (1 - _DAMPING) * rank @ chain
        if np.abs(following - rank).sum() < _TOLERANCE:
            return following
        rank = following
    return rank


def select(rows: np.ndarray, scores: np.ndarray, most: int, balance: float = 0.7) -> list[int]:
    """Numbers of at most `most` sentences with high scores that say different things, rising.

    scores: [n] of each sentence; one with 0 is never taken. balance: weight of the score against
    the likeness to a sentence that is there already.
    """
    top = float(scores.max(initial=0.0))
    if top <= 0:
        return []
    relevance = scores / top
    chosen: list[int] = []
    likest = np.zeros(len(rows))  # of each sentence to a chosen one
    while len(chosen) < most:
        gain = np.where(relevance > 0, balance * relevance - (1 - balance) * likest, -np.inf)
        gain[chosen] = -np.inf
        best = int(gain.argmax())  # of equal ones the earliest
        if not np.isfinite(gain[best]):
            break
        chosen.append(best)
        likest = np.maximum(likest, np.maximum(rows @ rows[best], 0.0))
    return sorted(chosen)


def unit(rows: Sequence[np.ndarray]) -> np.ndarray:
    """[E] mean of some rows, of unit length."""
    mean = np.mean(np.stack(rows), axis=0, dtype=float)
    norm = float(np.linalg.norm(mean))
    return np.asarray(mean / norm if norm > 0 else mean, dtype=np.float32)
