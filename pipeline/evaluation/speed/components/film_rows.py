"""Search rows distributed as those of a long film.

Frames of a film with cards are really embedded. The film repeats until there are enough rows, and
every repetition moves each scene a little. What an index finds depends on where rows and questions
lie: texts do not lie where pictures do, and frames of a scene lie close together. Random rows show
neither. Knows an embedder and no index.
"""

from collections.abc import Iterator

import numpy as np

from encoders.schema import FrameEmbedder, Frames
from pipeline.evaluation.needle.films.haystack import SCENE_S, ProceduralHaystack
from pipeline.needle_world import cards, questions
from pipeline.needle_world.scenes import random_scene

_SIZE = (224, 224)  # pixels of a made frame
_BATCH = 64
_EVERY, _SHOWN = 10, 3  # seconds from card to card, and for how long each is seen
_SCENE = 0.20  # how far a scene is moved when it comes again, as a share of a row's length
_FRAME = 0.05  # and each frame of it


def film_embeddings(embedder: FrameEmbedder, count: int, seed: int) -> np.ndarray:
    """[count, E] float32 unit rows of the frames of a film, one frame a second.

    Procedural footage with a card every few seconds.
    """
    haystack, batches = ProceduralHaystack(seed, _SIZE), []
    for first in range(0, count, _BATCH):
        seconds = range(first, min(first + _BATCH, count))
        pixels = np.stack([np.asarray(_picture(haystack, seed, second)) for second in seconds])
        batches.append(
            embedder.embed_frames(Frames("film", pixels, np.array(seconds, np.float64))).numpy()
        )
    return np.concatenate(batches)


def repeated_rows(
    rows: np.ndarray, count: int, seed: int, step: int = 1 << 13
) -> Iterator[np.ndarray]:
    """[count, E] rows like these, in pieces of `step`.

    The first len(rows) are unchanged; then all repeat. Each frame then lies somewhere between
    itself and its neighbour, and each scene is moved its own way.
    """
    width = rows.shape[1]
    for first in range(0, count, step):
        at = np.arange(first, min(first + step, count))
        again, place = np.divmod(at, len(rows))
        rng = np.random.default_rng((seed, first))
        share = np.where(again > 0, rng.random(len(at)), 0.0)[:, None].astype(np.float32)
        mixed = (1 - share) * rows[place] + share * rows[np.minimum(place + 1, len(rows) - 1)]
        moved = _moves(again, (place // SCENE_S).astype(np.int64), width, seed)
        moved += _FRAME / width**0.5 * rng.standard_normal(mixed.shape, dtype=np.float32)
        mixed += np.where(again > 0, 1.0, 0.0)[:, None].astype(np.float32) * moved
        yield mixed / np.linalg.norm(mixed, axis=1, keepdims=True)


def question_texts(count: int, seed: int) -> list[str]:
    """Questions that fit such a film, no two alike as long as there are enough."""
    rng, texts = np.random.default_rng(seed), dict[str, None]()
    for _ in range(50 * count):
        if len(texts) == count:
            break
        question = questions.ask_one(rng, random_scene(rng, 6), str(rng.choice(questions.FAMILIES)))
        if question is not None:
            texts[question.text] = None
    return [list(texts)[i % len(texts)] for i in range(count)]


def _picture(haystack: ProceduralHaystack, seed: int, second: int) -> "cards.Image.Image":
    picture = haystack.at(second)
    number, since = divmod(second, _EVERY)
    if since < _SHOWN:
        rng = np.random.default_rng((seed, 1, number))
        kind = cards.KINDS[int(rng.integers(len(cards.KINDS)))]
        cards.draw(picture, cards.random_needle(rng, kind), cards.random_placement(rng, kind))
    return picture


def _moves(again: np.ndarray, scene: np.ndarray, width: int, seed: int) -> np.ndarray:
    """[T, E] the same move for all frames of a scene in one repetition."""
    moves = np.empty((len(again), width), np.float32)
    edges = np.flatnonzero(np.diff(again, prepend=-1) | np.diff(scene, prepend=-1))
    for a, b in zip(edges, [*edges[1:], len(again)], strict=True):
        rng = np.random.default_rng((seed, int(again[a]), int(scene[a])))
        moves[a:b] = _SCENE / width**0.5 * rng.standard_normal(width, dtype=np.float32)
    return moves
