"""Central sentences, and a choice without repetitions."""

import numpy as np

from pipeline.summary import lex_rank
from pipeline.summary.word_rows import word_rows

TEXTS = [
    "The harbour was rebuilt with granite from the quarry.",
    "Granite from the quarry was used for the harbour.",
    "The quarry gave granite, and the harbour got a wall.",
    "A parrot could swear.",
]


def test_a_sentence_that_others_resemble_is_central() -> None:
    scores = lex_rank.centrality(word_rows(TEXTS))
    assert abs(scores.sum() - 1) < 1e-6 and scores.argmin() == 3


def test_a_repetition_is_taken_after_something_else() -> None:
    rows = word_rows(TEXTS)
    scores = np.array([0.3, 0.29, 0.2, 0.2])
    assert lex_rank.select(rows, scores, 2, balance=0.5) == [0, 3]
    assert lex_rank.select(rows, scores, 2, balance=1.0) == [0, 1]


def test_a_sentence_without_score_is_never_taken() -> None:
    assert lex_rank.select(word_rows(TEXTS), np.array([0.0, 0.0, 0.1, 0.0]), 3) == [2]
    assert lex_rank.select(np.zeros((0, 2)), np.zeros(0), 3) == []


def test_thousands_of_sentences_are_ranked_by_a_sample() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(5000, 8))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    scores = lex_rank.centrality(rows)
    assert len(scores) == 5000 and abs(scores.sum() - 1) < 1e-6


def test_without_any_word_all_are_equal() -> None:
    assert np.allclose(lex_rank.centrality(np.zeros((4, 3))), 0.25)
