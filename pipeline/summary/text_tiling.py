"""Where one topic ends and the next one begins, by the words of a talk: TextTiling (Hearst,
Computational Linguistics 23(1), 1997).

Between two neighboring sentences, the words of the sentences before are compared with those of the
sentences after. Where the similarity falls into a deep valley, the topic changes. Knows vectors and
times; no text, no bank.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from encoders.segmenters import depths

_FLAT = 1e-6  # a valley that is no deeper is none


@dataclass(frozen=True, slots=True)
class TextTiling:
    """Borders of a list of sentences.

    shortest: seconds of the shortest chapter.
    spread: a valley is a border when it is deeper than the mean depth by so many standard
    deviations. Hearst takes -1 or -0.5, for paragraphs; sentences share few words, and 1.5 made the
    fewest mistakes on talks for calibration.
    least_block: sentences on each side of a gap, at least.
    """

    shortest: float
    spread: float = 1.5
    least_block: int = 8

    def borders(self, rows: np.ndarray, starts: Sequence[float], end: float) -> list[int]:
        """Numbers of the sentences that begin a chapter, rising; the first one is not among them.

        rows: [n, W] words of the sentences. starts: seconds of each sentence, rising. end: seconds
        at which the last one ends.
        """
        if len(rows) < 2 * self.least_block:
            return []
        deep = depths(_similarities(rows, self._block(len(rows), starts, end)))
        threshold = max(float(deep.mean() + self.spread * deep.std()), _FLAT)
        borders: list[int] = []
        # the deepest first; of equal ones the earlier
        for gap in sorted(range(len(deep)), key=lambda gap: (-deep[gap], gap)):
            if deep[gap] <= threshold:
                break
            edges = [starts[0], end, *(starts[border] for border in borders)]
            if all(abs(starts[gap + 1] - edge) >= self.shortest for edge in edges):
                borders.append(gap + 1)
        return sorted(borders)

    def _block(self, count: int, starts: Sequence[float], end: float) -> int:
        """Sentences that are compared on each side: as many as a shortest chapter has."""
        seconds = max(end - starts[0], 1e-6)
        return max(self.least_block, round(count * min(self.shortest / seconds, 0.5)))


def _similarities(rows: np.ndarray, block: int) -> np.ndarray:
    """[n - 1] cosine of the sums of the `block` rows before and after each gap."""
    count = len(rows)
    sums = np.concatenate([np.zeros((1, rows.shape[1])), np.cumsum(rows, axis=0, dtype=float)])
    gaps = np.arange(1, count)
    left = sums[gaps] - sums[np.maximum(gaps - block, 0)]  # [n - 1, W]
    right = sums[np.minimum(gaps + block, count)] - sums[gaps]
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    products = np.einsum("nw,nw->n", left, right)
    return np.divide(products, norms, out=np.zeros(count - 1), where=norms > 1e-12)
