"""How much a line and a question agree, in numbers that the judge weighs. Knows no weights, no bank
and no model.

Each line is compared alone and with its neighbors: the whole sentence by its vector, and word by
word (late interaction, memory/text/maxsim.py). No number says what kind of question was asked; only
whether a line has what it asks for. What people ask in vain differs from place to place.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from encoders.text.lines import TextLine, WordVectors
from memory.text import tokenizer
from pipeline.answer.quotes.answer_type import Matches

# numbers of a line, in the order of the columns
LINE = (
    "sentence, alone",
    "sentence, with the line before",
    "sentence, with the line after",
    "question's words in the line",
    "line's words in the question",
    "telling words, mean",
    "telling words, least",
    "telling words or the same word, mean",
    "telling words or the same word, least",
    "with neighbors, mean",
    "with neighbors, least",
    "same words",
    "same words, with neighbors",
    "what is asked for is missing",
    "what is asked for is missing, with neighbors",
    "names are missing, with neighbors",
    "question word",
    "words that the question lacks",
    "length",
    "sentence, beyond the best other line",
    "question's words, beyond the best other line",
    "telling words, beyond the best other line",
)
# numbers of a question and all its lines
FILM = ("telling words somewhere, mean", "telling words somewhere, least", "names are missing")

_MARGINS = (0, 3, 5)  # columns whose margin to the best other line counts
_ASKING = frozenset("who whom whose what which when where why how".split())
# words that say what kind of answer is wanted, not what about
_VAGUE = tokenizer.STOP | frozenset(
    """much many long far old ever number numbers name names year years day days time hour hours
    kind sort colour color people person place thing things way part month months week weeks minute
    minutes share amount""".split()
)


@dataclass(frozen=True, slots=True)
class Reading:
    """A line and its neighbors in the same channel, encoded."""

    line: TextLine
    before: TextLine | None
    after: TextLine | None
    alone: WordVectors
    with_before: WordVectors  # of both texts; the line alone where there is no neighbor
    with_after: WordVectors

    @property
    def around(self) -> str:
        """The text of the line and its neighbors."""
        lines = (self.before, self.line, self.after)
        return " ".join(line.text for line in lines if line is not None)


@dataclass(frozen=True, slots=True)
class Agreement:
    """Numbers of one question and its lines."""

    lines: np.ndarray  # [L, len(LINE)] float32
    film: np.ndarray  # [len(FILM)] float32


def measure(
    question: WordVectors, readings: Sequence[Reading], expected: Matches | None
) -> Agreement:
    """The numbers of a question and lines that may answer it, at least one.

    expected: the test that a text must pass to answer, None where any text may.
    """
    words = [word.lower() for word in question.words]
    telling = [at for at, word in enumerate(words) if word not in _VAGUE]
    telling = telling or [at for at, word in enumerate(words) if word not in tokenizer.STOP]
    telling = telling or list(range(len(words)))
    stems = [_stem(words[at]) for at in telling]
    names = [_stem(word) for word in question.words[1:] if word[:1].isupper()]
    asked = set(tokenizer.words(" ".join(question.words)))
    of_telling = question.rows[telling]
    asking = [at for at, word in enumerate(words) if word in _ASKING][:1]

    rows, near, same = [], [], []  # near: [T, L] each telling word's best likeness in a line
    for one in readings:
        own = set(tokenizer.words(one.line.text))
        around = set(tokenizer.words(one.around))
        content = _content(one.alone)
        likeness = _best(of_telling, content)
        exact = np.array([stem in own for stem in stems], np.float32)
        exact_around = np.array([stem in around for stem in stems], np.float32)
        joined = np.maximum(
            _best(of_telling, one.with_before.rows), _best(of_telling, one.with_after.rows)
        )
        joined = np.maximum.reduce([joined, likeness, exact_around])
        likely = np.maximum(likeness, exact)
        lacks = expected is not None and not expected(one.line.text)
        lacks_around = expected is not None and not expected(one.around)
        rows.append(
            [
                float(one.alone.sentence @ question.sentence),
                float(one.with_before.sentence @ question.sentence),
                float(one.with_after.sentence @ question.sentence),
                _mean(_best(question.rows, one.alone.rows)),
                _mean(_best(one.alone.rows, question.rows)),
                _mean(likeness),
                _least(likeness),
                _mean(likely),
                _least(likely),
                _mean(joined),
                _least(joined),
                _mean(exact),
                _mean(exact_around),
                float(lacks),
                float(lacks_around),
                _mean(np.array([name not in around for name in names], np.float32)),
                _mean(_best(question.rows[asking], one.alone.rows)),
                float(np.log1p(len(own - asked))),
                float(np.log1p(len(one.alone.words))),
            ]
        )
        near.append(likely)
        same.append(around)
    table = np.array(rows, np.float32)
    margins = [table[:, at] - _best_other(table[:, at]) for at in _MARGINS]
    somewhere = np.max(near, axis=0)
    nowhere = [not any(name in around for around in same) for name in names]
    film = [_mean(somewhere), _least(somewhere), _mean(np.array(nowhere, np.float32))]
    return Agreement(
        np.concatenate([table, np.stack(margins, 1)], 1).astype(np.float32),
        np.array(film, np.float32),
    )


def _content(text: WordVectors) -> Tensor:
    """[n, E]: words that are no stop words; all where there are no others."""
    keep = [at for at, word in enumerate(text.words) if word.lower() not in tokenizer.STOP]
    return text.rows[keep] if keep else text.rows


def _best(these: Tensor, those: Tensor) -> np.ndarray:
    """[n] float32: for each row of `these`, the cosine of the most similar row of `those`."""
    if not len(those):
        return np.zeros(len(these), np.float32)
    with torch.inference_mode():
        best: np.ndarray = (these @ those.T).amax(dim=1).numpy()
    return best


def _best_other(column: np.ndarray) -> np.ndarray:
    """[L]: for each line, the best of all others; 0 where there is no other."""
    if len(column) < 2:
        return np.zeros_like(column)
    second, first = np.sort(column)[-2:]
    return np.where(column == first, second, first)


def _stem(word: str) -> str:
    stems = tokenizer.words(word)
    return stems[0] if stems else word


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else 0.0


def _least(values: np.ndarray) -> float:
    return float(values.min()) if len(values) else 0.0
