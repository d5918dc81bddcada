"""VNBench's scorers (arXiv 2406.09367), by the rules of its released results.

A question is asked four times, and counts only if all four tries are right. Overall is the mean
over types, which equals the mean over the groups ret, ord and cnt when all nine types are there.
Knows no model and no film.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from encoders.errors import UserError
from pipeline.evaluation.needle.films.vnbench import LETTERS, TryRow

GROUPS = ("ret", "ord", "cnt")
# The annotation swaps the names of retrieval's two picture tasks, against its files and its paper.
SWAPPED = {"ret_insert1": "ret_insert2", "ret_insert2": "ret_insert1"}


@dataclass(frozen=True, slots=True)
class Score:
    """Shares of 1."""

    types: dict[str, float]  # by type: videos with all four tries right
    groups: dict[str, float]  # ret, ord, cnt: mean of their types
    overall: float  # mean over types
    single: float  # right tries, each on its own, mean over types
    videos: int


def read_results(path: Path) -> list[TryRow]:
    """A file of results in either published form, as rows {video, type, try, pred, gt}.

    UserError names row and field.
    """
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path} cannot be read ({error}); give a file of results, one JSON object a line."
        ) from error
    results = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(
                f"{path}, row {number} is no JSON ({error.msg}); give one object a line."
            ) from error
        if not isinstance(row, dict):
            raise UserError(f"{path}, row {number} is no JSON object; give one object a line.")
        names = ("question_id", "type") if "question_id" in row else ("video_path", "task_type")
        for name in (*names, "gt", "pred", "try"):
            if name not in row:
                raise UserError(
                    f"{path}, row {number} has no field {name!r}; results of VNBench have it."
                )
        gt = LETTERS[row["gt"]] if isinstance(row["gt"], int) else str(row["gt"])
        video = str(row[names[0]])[: -2 if names[0] == "question_id" else None]
        results.append(
            {
                "video": video,
                "type": row[names[1]],
                "try": row["try"],
                "pred": row["pred"],
                "gt": gt,
            }
        )
    if not results:
        raise UserError(f"{path} holds no results; give a file with one JSON object a line.")
    return results


def score(results: Iterable[Mapping[str, Any]], *, strict: bool = False) -> Score:
    """results: rows {video, type, try, pred, gt}; gt is a letter.

    As evaluation/eval.py: rows without an answer are left out. The letter is searched in the text
    before the first full stop, A before B before C before D.

    strict, as evaluation_utils.py: the first character is the letter. Every video must have four
    rows (UserError). The two picture tasks of retrieval are named as in the paper.
    """
    tries_of: dict[tuple[str, str], list[bool]] = defaultdict(list)
    for row in results:
        if row["pred"] is None and not strict:
            continue
        text = row["pred"] or ""
        letter = text[:1] if strict else _first_letter(text)
        tries_of[row["type"], row["video"]].append(letter == row["gt"])
    if not tries_of:
        raise UserError("There is no answer to score; give results with pred.")
    whole: dict[str, list[bool]] = defaultdict(list)
    every: dict[str, list[bool]] = defaultdict(list)
    for (type_, video), hits in tries_of.items():
        if strict and len(hits) != 4:
            raise UserError(
                f"{video} has {len(hits)} tries, and 4 are needed; score complete results."
            )
        name = SWAPPED.get(type_, type_) if strict else type_
        whole[name].append(sum(hits) == 4)
        every[name] += hits
    types = {name: mean(hits_of_type) for name, hits_of_type in sorted(whole.items())}
    groups: dict[str, float] = {}
    for group in GROUPS:
        of_group = [share for name, share in types.items() if name.startswith(group)]
        if of_group:
            groups[group] = mean(of_group)
    single = mean(mean(hits_of_type) for hits_of_type in every.values())
    return Score(types, groups, mean(types.values()), single, len(tries_of))


def _first_letter(text: str) -> str:
    head = text.split(".")[0]
    return next((letter for letter in LETTERS if letter in head), head)


def blind_rules(rows_of_tries: Sequence[TryRow]) -> dict[str, float]:
    """Scores of rules over the text of the options alone, the best of each kind in hindsight.

    A constant letter, and the option of one rank: numbers by size, lists by closeness to the
    others, words by the alphabet.
    """
    by_video: dict[str, list[TryRow]] = defaultdict(list)
    for row in rows_of_tries:
        by_video[row["video"]].append(row)
    letters = {
        letter: mean(row["gt_option"] == letter for row in rows_of_tries) for letter in LETTERS
    }
    ranks: dict[int, list[bool]] = defaultdict(list)
    for same_video in by_video.values():
        for place, option in enumerate(_ranked(same_video[0]["options"])):
            ranks[place].append(option == same_video[0]["gt"])
    return {
        "a constant letter, single try": max(letters.values()),
        "an option by its rank, four tries": max(mean(hits) for hits in ranks.values()),
    }


def _ranked(options: Sequence[str]) -> list[str]:
    """Numbers by size, lists by closeness to the others, words by the alphabet.

    Orders of the same words are close by Kendall's distance, other lists by equal entries.
    """
    if all(option.isdigit() and len(option) < 3 for option in options):
        return sorted(options, key=int)
    if all("," in option for option in options):
        words = {frozenset(option.split(", ")) for option in options}
        distance = _swaps if len(words) == 1 else _unequal
        return sorted(options, key=lambda o: (sum(distance(o, other) for other in options), o))
    return sorted(options)


def _swaps(one: str, other: str) -> int:
    """Number of pairs in opposite order."""
    a, b = one.split(", "), other.split(", ")
    pairs = [(x, y) for i, x in enumerate(a) for y in a[i + 1 :]]
    return sum(b.index(x) > b.index(y) for x, y in pairs)


def _unequal(one: str, other: str) -> int:
    """Number of places that hold different entries."""
    return sum(x != y for x, y in zip(one.split(", "), other.split(", "), strict=False))
