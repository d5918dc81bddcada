"""VNBench's formats and rules (arXiv 2406.09367), from its released results.

Rows, prompts, four tries and both scorers. A question is asked four times with its options in four
fixed orders, and counts only if all four tries are right. The orders are no rotation: the right
letter does not visit all four letters. Overall is the mean over types, which equals the mean over
the groups ret, ord and cnt when all nine types are there. Knows no model, and of a film only its
plan.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from encoders.errors import UserError
from memory.storage.atomic import replacing
from pipeline.evaluation.needle.schema import Film, Item

TryRow = dict[str, Any]
LETTERS = "ABCD"
GROUPS = ("ret", "ord", "cnt")
# try t shows base[i] for i in ORDERS[t]
ORDERS = ((0, 1, 2, 3), (0, 3, 1, 2), (1, 3, 2, 0), (3, 2, 0, 1))
ASK = "Answer with the option's letter from the given choices directly."
FIELDS: dict[str, type | tuple[type, ...]] = {
    "video": str,
    "question": str,
    "options": list,
    "gt": str,
    "gt_option": str,
    "needle_time": list,
    "length": (int, float),
    "type": str,
    "try": int,
}
# The annotation swaps the names of retrieval's two picture tasks, against its files and its paper.
SWAPPED = {"ret_insert1": "ret_insert2", "ret_insert2": "ret_insert1"}


def tries(
    video: str,
    type_: str,
    question: str,
    base: Sequence[str],
    slot: int,
    times: Sequence[float],
    length: float,
) -> list[TryRow]:
    """The four rows of a question; base: the options of try 0, slot: the right one among them."""
    return [
        {
            "video": video,
            "question": question,
            "options": [base[i] for i in order],
            "gt": base[slot],
            "gt_option": LETTERS[order.index(slot)],
            "needle_time": list(times),
            "length": length,
            "type": type_,
            "try": number,
        }
        for number, order in enumerate(ORDERS)
    ]


def prompt(row: Mapping[str, Any]) -> str:
    """The prompt of one try."""
    options = "\n".join(
        f"{letter}. {option}" for letter, option in zip(LETTERS, row["options"], strict=True)
    )
    return f"{row['question']}\n{options}\n{ASK}"


def type_of(item: Item, film: Film) -> str:
    """The annotation's type of a question.

    "edit" alters frames, "insert" puts pictures between them. Tasks that VNBench does not have keep
    their own names and count in none of its groups.
    """
    group = {"retrieve": "ret", "order": "ord", "count": "cnt"}.get(item.task)
    if group is None:
        return item.task
    inserted = film.spliced or any(film.shown[i].look == "picture" for i in item.needles)
    return f"{group}_{'insert' if inserted else 'edit'}1"


def rows(item: Item, film: Film) -> list[TryRow]:
    """The four rows of an item. Each question names its own file: scorers group tries by video."""
    times = [start for start, _ in film.spans(item.needles)]
    video = f"./VNBench/{file_name(item, film)}"
    return tries(
        video, type_of(item, film), item.question, item.options, item.slot, times, film.seconds
    )


def file_name(item: Item, film: Film) -> str:
    return f"{item.id}_{type_of(item, film)}.mp4"


def write(path: Path, rows_of_tries: Sequence[TryRow]) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(rows_of_tries, indent=0) + "\n", encoding="utf-8")


def read(path: Path) -> list[TryRow]:
    """An annotation file. UserError names the row and the field that is missing or does not fit."""
    try:
        read_rows = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path} cannot be read ({error}); give an annotation file of VNBench's form."
        ) from error
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path} is no JSON ({error.msg} in line {error.lineno}); give a list of rows."
        ) from error
    if not isinstance(read_rows, list) or not read_rows:
        raise UserError(f"{path} holds no list of rows; give an annotation file of VNBench's form.")
    for number, row in enumerate(read_rows, start=1):
        if not isinstance(row, dict):
            raise UserError(
                f"{path}, row {number} is no object; give rows with {', '.join(FIELDS)}."
            )
        for name, kind in FIELDS.items():
            if name not in row:
                raise UserError(
                    f"{path}, row {number} has no field {name!r}; rows have {', '.join(FIELDS)}."
                )
            if not isinstance(row[name], kind) or isinstance(row[name], bool):
                raise UserError(
                    f"{path}, row {number}: {name}={row[name]!r} does not fit; "
                    "see docs/guides/needle-benchmark.md for the form."
                )
        if (
            len(row["options"]) != 4
            or row["gt_option"] not in list(LETTERS)
            or row["try"] not in range(4)
        ):
            raise UserError(
                f"{path}, row {number} needs 4 options, gt_option A to D and try 0 to 3; correct "
                "the row."
            )
        if row["options"][LETTERS.index(row["gt_option"])] != row["gt"]:
            raise UserError(
                f"{path}, row {number}: option {row['gt_option']} is not gt={row['gt']!r}; correct "
                "the row."
            )
    return read_rows


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
        letter = text[:1] if strict else _searched(text)
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


def _searched(text: str) -> str:
    head = text.split(".")[0]
    return next((letter for letter in LETTERS if letter in head), head)


def blind_rules(rows_of_tries: Sequence[TryRow]) -> dict[str, float]:
    """Scores of rules over the text of the options alone, the best of each kind in hindsight.

    A constant letter, and the option of one rank: numbers by size, orders by closeness to the
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
    """Numbers by size, orders by closeness to the others (Kendall), words by the alphabet."""
    if all(option.isdigit() and len(option) < 3 for option in options):
        return sorted(options, key=int)
    if all("," in option for option in options):
        return sorted(options, key=lambda o: (sum(_swaps(o, other) for other in options), o))
    return sorted(options)


def _swaps(one: str, other: str) -> int:
    """Number of pairs in opposite order."""
    a, b = one.split(", "), other.split(", ")
    pairs = [(x, y) for i, x in enumerate(a) for y in a[i + 1 :]]
    return sum(b.index(x) > b.index(y) for x, y in pairs)
