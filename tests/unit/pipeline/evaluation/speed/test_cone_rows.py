"""Rows that lie about as those of CLIP and SigLIP, and what the index finds among them."""

import numpy as np
import pytest
import torch

from memory.retrieval.frame_index import FrameIndex
from memory.retrieval.ivf_block import IvfBlock
from pipeline.evaluation.speed.command import INDEX_KINDS
from pipeline.evaluation.speed.components.cone_rows import PUBLISHED, ConeRows

ROWS = 12_000


def rows_and_texts(kind: str) -> tuple[np.ndarray, np.ndarray]:
    cones = ConeRows(PUBLISHED[kind], seed=1)
    return np.concatenate(list(cones.pieces(ROWS))), cones.texts(24, ROWS)


def test_they_lie_as_the_cones_say() -> None:
    """CLIP: two pictures 0.47, two texts 0.51, the means 0.82 apart."""
    rows, texts = rows_and_texts("clip512")
    again = np.concatenate(list(ConeRows(PUBLISHED["clip512"], seed=1).pieces(9_000)))
    assert rows.dtype == np.float32 and np.array_equal(rows[:9_000], again)
    assert rows.shape == (ROWS, 512) and np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    one, other = np.random.default_rng(0).permutation(ROWS).reshape(2, -1)
    # three films: two frames are of the same one more often than among many
    assert (rows[one] * rows[other]).sum(1).mean() == pytest.approx(0.53, abs=0.06)
    pairs = (texts @ texts.T)[np.triu_indices(len(texts), 1)]
    assert pairs.mean() == pytest.approx(0.51, abs=0.02)
    assert np.linalg.norm(rows.mean(0) - texts.mean(0)) == pytest.approx(0.82, abs=0.06)
    assert np.median((rows[1:] * rows[:-1]).sum(1)) == pytest.approx(0.97, abs=0.01)
    ranked = -np.sort(-texts @ rows.T, axis=1)
    assert (ranked[:, 60] - ranked[:, 64]).mean() < 0.003  # neighbors differ in the third decimal
    assert set(INDEX_KINDS) == {"film", "random", *PUBLISHED}


@pytest.mark.slow  # seconds of CPU
def test_texts_find_what_an_exact_search_finds() -> None:
    """In a block, among twice as many candidates as hits; projected to 128 numbers it was 0.6."""
    rows, texts = rows_and_texts("siglip768")
    block, shares = IvfBlock.train(rows), []
    index = FrameIndex(768, block=4096, switch=4096)
    index.add(torch.from_numpy(rows))
    for text in texts:
        exact = np.argsort(-(rows @ text))[:32]
        shares.append(len(np.intersect1d(exact, block.search(text, 64)[0])) / 32)
        found, _ = index.search(torch.from_numpy(text), 32, ROWS)
        assert len(np.intersect1d(exact, found)) >= 24
    assert np.mean(shares) > 0.9
