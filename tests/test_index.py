"""The FAISS index of one video: exact, blind for the future, and never trusted when its file does not fit."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from memory.index import FrameIndex


def rows_of(count: int, width: int = 4) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(count))


def index_of(rows: torch.Tensor) -> FrameIndex:
    index = FrameIndex(rows.shape[1])
    index.add(rows)
    return index


@given(
    st.lists(st.lists(st.integers(-1, 1), min_size=2, max_size=2), min_size=1, max_size=40),
    st.integers(0, 45),
    st.data(),
)
def test_search_is_brute_force_with_ties_by_ordinal(rows, k, data):
    """Small integers: products are exact, and most scores are tied."""
    visible = data.draw(st.integers(0, len(rows)))
    query = torch.tensor([1.0, 2.0])
    ordinals, scores = index_of(torch.tensor(rows, dtype=torch.float32)).search(query, k, visible)
    truth = [float(a + 2 * b) for a, b in rows[:visible]]
    best = sorted(range(visible), key=lambda ordinal: (-truth[ordinal], ordinal))[:k]
    assert ordinals.tolist() == best
    assert scores.tolist() == [truth[ordinal] for ordinal in best]


@pytest.mark.parametrize(("count", "k"), [(50, 9), (500, 98), (500, 150), (5000, 999)])
def test_the_cut_between_equal_scores_keeps_the_earlier_frames(count, k):
    """Seven different scores only; FAISS itself picks other rows at these sizes."""
    rows = torch.randint(-1, 2, (count, 2), generator=torch.Generator().manual_seed(count)).float()
    query = torch.tensor([1.0, 2.0])
    truth = (rows @ query).numpy()
    best = np.lexsort((np.arange(count), -truth))[:k]
    assert index_of(rows).search(query, k, count)[0].tolist() == best.tolist()


def test_rows_are_numbered_over_all_adds():
    rows = rows_of(10)
    index = index_of(rows[:3])
    index.add(rows[3:].to(torch.float64)[:, :])  # any dtype, FAISS itself takes float32 only
    assert index.search(rows[7] * 100, 1, 10)[0].tolist() == [int((rows @ rows[7]).argmax())]
    assert len(index) == 10


def test_save_and_load(tmp_path: Path):
    index, path = index_of(rows_of(10)), tmp_path / "index" / "v.faiss"
    index.save(path)
    loaded = FrameIndex.load(path, rows=10)
    assert loaded is not None
    query = rows_of(1)[0]
    assert [part.tolist() for part in loaded.search(query, 4, 9)] == [part.tolist() for part in index.search(query, 4, 9)]
    loaded.add(rows_of(2))  # a loaded index goes on growing
    assert len(loaded) == 12
    assert list(path.parent.iterdir()) == [path]  # no temporary left


@pytest.mark.parametrize("rows", [9, 11])
def test_an_index_behind_or_ahead_is_not_used(tmp_path: Path, rows: int):
    index_of(rows_of(10)).save(tmp_path / "v.faiss")
    assert FrameIndex.load(tmp_path / "v.faiss", rows) is None


def test_a_damaged_index_is_not_used(tmp_path: Path):
    path = tmp_path / "v.faiss"
    assert FrameIndex.load(path, 10) is None  # missing
    index_of(rows_of(10)).save(path)
    whole = path.read_bytes()
    for at in np.linspace(0, len(whole) - 1, 20).astype(int):
        flipped = bytearray(whole)
        flipped[at] ^= 1
        path.write_bytes(flipped)
        assert FrameIndex.load(path, 10) is None
        path.write_bytes(whole[:at])
        assert FrameIndex.load(path, 10) is None
