"""Search rows and texts that lie about as those of published encoders do: two cones with a gap.

Made from descriptions, for which no weights are needed. Their figures are from memory, not read
again in the papers:

- Liang et al. 2022 (Mind the Gap, arXiv 2203.02053): pictures lie in a cone (mean cosine of two
  0.47), texts in another (0.51), and their means 0.82 apart (CLIP on MS COCO).
- Levi and Gilboa 2025 (arXiv 2411.14517): both are ellipsoids around a mean. Here the variance of
  the n-th axis falls as 1 / n.
- A film: frames of a scene are near-duplicates (neighbors have a cosine of 0.97), scenes of a film
  have a part in common.
- A text shares a quarter of what is special in it with its frame. The rest points anywhere, also
  where no picture lies. The best products of a text then differ in the third and fourth decimal.

Knows no embedder and no index.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Cones:
    """What is said of an encoder."""

    width: int  # numbers of a row
    means_product: float  # of the mean picture and the mean text
    picture_cosine: float = 0.47  # mean cosine of two pictures
    text_cosine: float = 0.51  # and of two texts


# CLIP: means 0.82 apart. SigLIP: the best cosine of a text among 205 hours is 0.16, so texts and
# pictures are at right angles
PUBLISHED = {"clip512": Cones(512, 0.154), "siglip768": Cones(768, 0.0)}
_FILM, _SCENE = 5400, 9  # frames of a film, and of a scene on average
# shares of what is special in a frame: its film, its scene, the way through it, the frame alone
_SHARES = np.sqrt(np.array([0.30, 0.50, 0.15, 0.05], np.float32))
_MATCH = np.float32(0.23)  # cosine of what is special in a text and in its frame


class ConeRows:
    """Frames of made-up films one after another, and texts about some of them."""

    def __init__(self, cones: Cones, seed: int) -> None:
        self._seed, self._width = seed, cones.width
        axes, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((cones.width,) * 2))
        first, second, self._axes = axes[0], axes[1], axes[2:].astype(np.float32)
        variance = 1 / np.arange(1, len(self._axes) + 1)
        self._deviations = np.sqrt(variance / variance.sum()).astype(np.float32)
        picture, text = cones.picture_cosine, cones.text_cosine
        cosine = cones.means_product / np.sqrt(picture * text)
        self._mean = (np.sqrt(picture) * first).astype(np.float32)
        across = cosine * first + np.sqrt(1 - cosine**2) * second
        self._text_mean = (np.sqrt(text) * across).astype(np.float32)
        self._special = np.float32(np.sqrt(1 - picture)), np.float32(np.sqrt(1 - text))

    def pieces(self, count: int) -> Iterator[np.ndarray]:
        """[count, E] float32 unit rows, in pieces of a film."""
        for number, first in enumerate(range(0, count, _FILM)):
            yield self._film(number)[: count - first]

    def texts(self, count: int, rows: int) -> np.ndarray:
        """[count, E] float32 unit rows, about frames among the first `rows`."""
        rng, texts = np.random.default_rng((self._seed, 1)), []
        for _ in range(count):
            film, frame = divmod(int(rng.integers(rows)), _FILM)
            match = _unit(self._film(film)[frame] - self._mean)
            anywhere = _unit(rng.standard_normal(self._width, dtype=np.float32))
            special = _MATCH * match + np.sqrt(1 - _MATCH**2) * anywhere
            texts.append(_unit(self._text_mean + self._special[1] * special))
        return np.stack(texts)

    def _film(self, number: int) -> np.ndarray:
        """[_FILM, E] float32 unit rows."""
        rng = np.random.default_rng((self._seed, 2, number))
        cuts = np.flatnonzero(rng.random(_FILM) < 1 / _SCENE)
        scene = np.searchsorted(cuts, np.arange(_FILM), side="right")
        edges = np.concatenate([[0], cuts, [_FILM]])
        place = (np.arange(_FILM) - edges[scene]) / np.maximum(np.diff(edges)[scene], 1)
        way = (np.sqrt(3) * (2 * place - 1)).astype(np.float32)  # from -1.7 to 1.7: variance 1
        film, scenes, ways = (self._latent(rng, n) for n in (1, len(cuts) + 1, len(cuts) + 1))
        rows = (_SHARES[0] * film + _SHARES[1] * scenes)[scene]
        rows += (_SHARES[2] * ways)[scene] * way[:, None]
        noise = rng.standard_normal(rows.shape, dtype=np.float32)
        noise *= _SHARES[3] / np.float32(np.sqrt(self._width))
        rows += noise
        rows *= self._special[0]
        rows += self._mean
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return rows

    def _latent(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """[count, E] float32 of mean length 1, on all axes but the two of the means."""
        drawn = rng.standard_normal((count, len(self._axes)), dtype=np.float32)
        latent: np.ndarray = (drawn * self._deviations) @ self._axes
        return latent


def _unit(row: np.ndarray) -> np.ndarray:
    unit: np.ndarray = row / np.linalg.norm(row)
    return unit
