"""Rows like a film's: what they are, and what the index finds among them."""

import numpy as np
import pytest
import torch

from encoders.models.clip import ClipEncoder
from memory.retrieval.frame_index import SWITCH, FrameIndex
from pipeline.config.task_settings import WEIGHTS
from pipeline.evaluation.speed.components import film_rows


@pytest.fixture(scope="module")
def clip() -> ClipEncoder:
    return ClipEncoder(f"local-dir:{WEIGHTS / 'clip'}")


def test_rows_go_on_as_a_film_does(clip: ClipEncoder) -> None:
    film = film_rows.film_embeddings(clip, 40, seed=1)
    assert film.shape == (40, 128) and film.dtype == np.float32
    assert np.array_equal(film[:20], film_rows.film_embeddings(clip, 20, seed=1)[:20])
    rows = np.concatenate(list(film_rows.repeated_rows(film, 400, seed=1, step=100)))
    assert (
        rows.shape == (400, 128)
        and rows.dtype == np.float32
        and np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    )
    assert np.allclose(rows[:40], film, atol=1e-6) and len(np.unique(rows, axis=0)) == 400
    near = (rows[:-1] * rows[1:]).sum(1).mean()
    assert near > (rows[:-213] * rows[213:]).sum(1).mean()  # neighbours are more alike than any two
    assert len(set(film_rows.question_texts(20, seed=1))) == 20


@pytest.mark.slow
def test_texts_find_what_an_exact_search_finds(clip: ClipEncoder) -> None:
    """At least 0.95 of the first 64 among 300,000 rows; measured 1.000."""
    index, exact = FrameIndex(128), FrameIndex(128, switch=1 << 30)
    for rows in film_rows.repeated_rows(
        film_rows.film_embeddings(clip, 512, seed=2), 300_000, seed=2
    ):
        for each in (index, exact):
            each.add(torch.from_numpy(rows))
    assert index.is_approximate and len(index) > SWITCH and not exact.is_approximate
    shares = []
    for text in film_rows.question_texts(30, seed=2):
        found, true = (
            set(each.search(clip.embed_text(text), 64, 300_000)[0].tolist())
            for each in (index, exact)
        )
        shares.append(len(found & true) / 64)
    assert np.mean(shares) >= 0.95
