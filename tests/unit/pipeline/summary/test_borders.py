"""Borders between topics: by meaning, and by words."""

import numpy as np
import pytest

from pipeline.summary.text_tiling import TextTiling
from pipeline.summary.topic_partition import TopicPartition
from pipeline.summary.word_rows import word_rows

WIDTH = 64


def topics(counts: list[int], seed: int = 0, noise: float = 0.8) -> np.ndarray:
    """[n, WIDTH] unit rows around one direction for each topic."""
    rng = np.random.default_rng(seed)
    rows = []
    for count in counts:
        direction = rng.normal(size=WIDTH)
        direction /= np.linalg.norm(direction)
        rows += [direction + noise * rng.normal(size=WIDTH) / WIDTH**0.5 for _ in range(count)]
    array = np.stack(rows)
    return (array / np.linalg.norm(array, axis=1, keepdims=True)).astype(np.float32)


def starts(count: int, step: float = 4.0) -> list[float]:
    return [step * number for number in range(count)]


@pytest.mark.parametrize("seed", range(5))
def test_the_partition_finds_where_the_topic_changes(seed: int) -> None:
    rows = topics([20, 12, 30], seed)
    assert TopicPartition(20.0).borders(rows, starts(62), 248.0) == [20, 32]


@pytest.mark.parametrize("seed", range(5))
def test_one_topic_has_no_border(seed: int) -> None:
    assert TopicPartition(20.0).borders(topics([60], seed), starts(60), 240.0) == []
    # nor have rows that share nothing
    assert TopicPartition(20.0).borders(topics([1] * 60, seed), starts(60), 240.0) == []


def test_no_chapter_is_shorter_than_the_shortest() -> None:
    rows = topics([10, 3, 10])
    assert TopicPartition(8.0).borders(rows, starts(23), 92.0) == [10, 13]
    borders = TopicPartition(30.0).borders(rows, starts(23), 92.0)
    edges = [0.0, *(4.0 * border for border in borders), 92.0]
    assert borders and min(np.diff(edges)) >= 30.0


def test_thousands_of_units_are_grouped() -> None:
    rows = topics([2500, 1500])
    (border,) = TopicPartition(600.0).borders(rows, starts(4000), 16000.0)
    assert abs(border - 2500) <= 3


@pytest.mark.parametrize("rows", [np.zeros((0, 3)), np.ones((1, 3)), np.ones((40, 3))])
def test_nothing_to_tell_apart_has_no_border(rows: np.ndarray) -> None:
    assert TopicPartition(1.0).borders(rows, starts(len(rows)), 4.0 * len(rows)) == []
    assert TextTiling(1.0).borders(rows, starts(len(rows)), 4.0 * len(rows)) == []


def test_a_film_below_the_shortest_chapter_is_one_chapter() -> None:
    assert TopicPartition(500.0).borders(topics([20, 20]), starts(40), 160.0) == []


def test_words_that_come_again_hold_a_chapter_together() -> None:
    rng = np.random.default_rng(3)
    words = ("flour dough oven yeast salt crust".split(), "sail mast deck anchor rope keel".split())
    texts = [" ".join(rng.choice(each, 4)) for each in words for _ in range(30)]
    (border,) = TextTiling(40.0).borders(word_rows(texts), starts(60), 240.0)
    assert abs(border - 30) <= 2
