"""The FAISS index of one video: exact, and blind for the future."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from memory.retrieval.frame_index import FrameIndex


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


def test_of_several_queries_the_nearest_counts():
    rows, queries = rows_of(60), rows_of(3)
    ordinals, scores = index_of(rows).search(queries, 60, 60)
    nearest = (rows.double() @ queries.double().T).max(1).values
    assert ordinals.tolist() == nearest.sort(descending=True).indices.tolist()
    assert scores == pytest.approx(nearest[ordinals].numpy(), abs=1e-5)


def test_rows_are_numbered_over_all_adds():
    rows = rows_of(10)
    index = index_of(rows[:3])
    index.add(rows[3:].to(torch.float64)[:, :])  # any dtype, FAISS itself takes float32 only
    assert index.search(rows[7] * 100, 1, 10)[0].tolist() == [int((rows @ rows[7]).argmax())]
    assert len(index) == 10


def test_rows_come_back_as_they_went_in():
    rows = rows_of(10)
    index = index_of(rows)
    assert np.array_equal(index.part(3, 7), rows[3:7].numpy()) and index.nbytes == rows.nbytes
