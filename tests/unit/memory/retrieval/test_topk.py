"""The end of every search: the largest, equal ones in rising order."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory.retrieval.topk import best


@given(st.lists(st.integers(-2, 2), max_size=80), st.integers(0, 90))
def test_the_best_are_those_of_a_stable_sort(scores, k):
    """There are few different scores, so that most cuts fall between equal ones. Both ways to find
    the best are tested.
    """
    order = sorted(range(len(scores)), key=lambda place: (-scores[place], place))[:k]
    assert best(np.array(scores, np.float32), k).tolist() == order


@pytest.mark.parametrize("k", [1, 3, 5, 30, 60])
def test_what_is_no_number_comes_last(k):
    scores = np.full(60, math.nan, np.float32)
    scores[[7, 40, 12]] = [1.0, 3.0, 1.0]
    assert (
        best(scores, k).tolist()
        == [40, 7, 12, *(place for place in range(60) if place not in (7, 12, 40))][:k]
    )
