"""Answers -> what lmms-eval adds up, by the rules of the needle benchmark (pipeline/evaluation/needle/score.py) and of VNBench
(pipeline/evaluation/needle/vnbench.py). Knows no lmms-eval.

For each document and its results (one text) a record by metric's name, for each metric the figure of all its records. `score`
in a record is what lmms-eval takes for its standard errors, and `film` what it clusters them by.
"""

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from pipeline.evaluation.needle import score, vnbench
from pipeline.schema import is_shown
from pipeline.scoring import is_right

Record = dict[str, Any]
Document = Mapping[str, Any]


def free(document: Document, results: Sequence[str]) -> dict[str, Record]:
    """A free answer: right or not; where there was nothing to see, whether it was an answer all the same."""
    text = results[0]
    row = {
        "film": document["film"],
        "options": document["options"],
        "right": is_right(text, document["answer"]),
        "shown": is_shown(text),
    }
    if not row["options"]:
        return {"false_positives": row | {"score": float(row["shown"])}}
    return {"right": row | {"score": float(row["right"])}}


def right(records: Sequence[Record]) -> float:
    """Share of free answers that are right."""
    return mean(right for _, right in score.accuracy(records))


def false_positives(records: Sequence[Record]) -> float:
    """Share of questions about what is not shown that got an answer."""
    return mean(shown for _, shown in score.false_positives(records))


def letters(document: Document, results: Sequence[str]) -> dict[str, Record]:
    """A try that is answered by a letter; the scorer looks for it in the text."""
    return _try(document, results[0])


def words(document: Document, results: Sequence[str]) -> dict[str, Record]:
    """A try that is answered in words, without having seen the options: its letter is that of the option which is said."""
    pairs = zip(vnbench.LETTERS, document["options"], strict=True)
    return _try(
        document, next((letter for letter, option in pairs if is_right(results[0], option)), "")
    )


def _try(document: Document, pred: str) -> dict[str, Record]:
    row = {name: document[name] for name in ("film", "type", "try")} | {
        "video": document["id"],
        "pred": pred,
        "gt": document["letter"],
    }
    row |= {"score": single_try([row])}
    group = next((group for group in vnbench.GROUPS if row["type"].startswith(group)), None)
    names = ["four_tries", "single_try", "named", *([group] if group else [])]
    return {name: row for name in names}


def four_tries(records: Sequence[Record]) -> float:
    """Share of questions all of whose four tries are right, mean over types."""
    return vnbench.score(records).overall


def single_try(records: Sequence[Record]) -> float:
    """Share of tries that are right, mean over types."""
    return vnbench.score(records).single


def named(records: Sequence[Record]) -> float:
    """Share of answers in which there is a letter at all; the others count as wrong."""
    return mean(any(letter in row["pred"] for letter in vnbench.LETTERS) for row in records)
