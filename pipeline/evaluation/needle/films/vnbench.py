"""VNBench's form of questions (arXiv 2406.09367), from its released annotation.

Rows, prompts and four tries. A question is asked four times with its options in four fixed orders.
The orders are no rotation: the right letter does not visit all four letters. Knows no model, and of
a film only its plan.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from encoders.errors import UserError
from memory.storage.atomic import replacing
from pipeline.evaluation.needle.films.schema import Film, Item

TryRow = dict[str, Any]
LETTERS = "ABCD"
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
