"""Answers -> what lmms-eval aggregates, by the rules of the needle benchmark and of VNBench.

The rules are score.py and vnbench_score.py in pipeline/evaluation/needle/results. For each document
and its result (one text) there is a record by metric; each metric is computed from all its records.
lmms-eval takes `score` in a record for its standard errors, and clusters them by `film`. Knows no
lmms-eval.
"""

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from pipeline.evaluation.needle.films import vnbench
from pipeline.evaluation.needle.results import score, vnbench_score
from pipeline.schema import is_shown
from pipeline.scoring import is_right

Record = dict[str, Any]
Document = Mapping[str, Any]


def free(document: Document, results: Sequence[str]) -> dict[str, Record]:
    """A free answer: right or wrong; where nothing is shown, whether it still answers."""
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
    return mean(is_false_positive for _, is_false_positive in score.false_positives(records))


def letters(document: Document, results: Sequence[str]) -> dict[str, Record]:
    """A try answered by a letter, which the scorer searches in the text."""
    return _try(document, results[0])


def words(document: Document, results: Sequence[str]) -> dict[str, Record]:
    """A try answered in words without seeing the options: the letter of the option it names."""
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
    group = next((group for group in vnbench_score.GROUPS if row["type"].startswith(group)), None)
    names = ["four_tries", "single_try", "named", *([group] if group else [])]
    return {name: row for name in names}


def four_tries(records: Sequence[Record]) -> float:
    """Share of questions with all four tries right, mean over types."""
    return vnbench_score.score(records).overall


def single_try(records: Sequence[Record]) -> float:
    """Share of right tries, mean over types."""
    return vnbench_score.score(records).single


def named(records: Sequence[Record]) -> float:
    """Share of answers that contain a letter; the others count as wrong."""
    return mean(any(letter in row["pred"] for letter in vnbench.LETTERS) for row in records)
