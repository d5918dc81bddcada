"""Sentences -> vectors of their words, for banks whose lines have no vectors of meaning."""

import math
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from memory.text import tokenizer

_MOST_WORDS = 4000  # of a film, the most frequent ones; rarer ones tie nothing together


@lru_cache(maxsize=1 << 15)  # the title of a chapter compares it with all others
def content_words(text: str) -> tuple[str, ...]:
    """The stems of a text's words without stop words."""
    terms = tokenizer.query(text).terms
    telling = {word for term in terms for word in term}
    return tuple(word for word in tokenizer.words(text) if word in telling)


def word_rows(texts: Sequence[str]) -> np.ndarray:
    """[n, W] float32 tf-idf rows of unit length; a text without telling words has a row of zeros.

    The weight of a word is log(1 + n / texts that have it).
    """
    counts = [Counter(content_words(text)) for text in texts]
    spread = Counter(word for each in counts for word in each)
    # of equally frequent ones, by the alphabet
    names = sorted(spread, key=lambda word: (-spread[word], word))[:_MOST_WORDS]
    places = {word: place for place, word in enumerate(names)}
    rows = np.zeros((len(texts), max(len(names), 1)), dtype=np.float32)
    for number, each in enumerate(counts):
        for word, count in each.items():
            if word in places:
                rows[number, places[word]] = count * math.log1p(len(texts) / spread[word])
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, norms, out=rows, where=norms > 0)
