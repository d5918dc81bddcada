"""Whether two runs of `reelbank needle` gave the same answers and citations, to the letter.

    python -m tests.measure.needle_answers OUT OTHER

OUT and OTHER are the `out=` folders of the runs. Rows are matched by arm and question, because
their keys hold digests of settings, and these may name modules. The exit code is 1 on any
difference, also on a row that only one run has.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support import measurement_page

Row = dict[str, Any]
FIELDS = ("question", "truth", "text", "right", "shown", "options", "choice", "preds", "cited")
READS = (
    "ranks",
    "ranked",
    "read",
    "frames_read",
    "visual_tokens",
    "read_bytes",
)  # what the answers rest on
SHOWN_AT_MOST = 20


def rows_of(folder: Path) -> dict[tuple[str, str], Row]:
    """The rows of a run by (arm, question id). ValueError on a row that comes twice."""
    rows: dict[tuple[str, str], Row] = {}
    for line in (folder / "results.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if (row["arm"], row["item"]) in rows:
            raise ValueError(
                f"{folder}: {row['arm']} {row['item']} has two rows; give a run in a new folder"
            )
        rows[row["arm"], row["item"]] = row
    return rows


def differences(before: dict[tuple[str, str], Row], after: dict[tuple[str, str], Row]) -> list[str]:
    """One line for each field of a row that differs, and for each row that one run lacks."""
    lines = [
        f"{arm} {item}: only in the {'first' if (arm, item) in before else 'second'} run"
        for arm, item in before.keys() ^ after.keys()
    ]
    for key in before.keys() & after.keys():
        one, other = before[key], after[key]
        lines += [
            f"{' '.join(key)}: {field} {one.get(field)!r} became {other.get(field)!r}"
            for field in (*FIELDS, *READS)
            if one.get(field) != other.get(field)
        ]
    return sorted(lines)


def table(before: dict[tuple[str, str], Row], after: dict[tuple[str, str], Row]) -> str:
    """The counts as Markdown."""
    both = sorted(before.keys() & after.keys())
    arms = sorted({arm for arm, _ in both})
    heads = [
        "arm",
        "rows",
        "same answer",
        "same citations",
        "same reads",
        "right before",
        "right after",
    ]
    tests: list[Callable[[Row, Row], bool]] = [
        lambda one, other: one["text"] == other["text"] and one["preds"] == other["preds"],
        lambda one, other: one["cited"] == other["cited"],
        lambda one, other: all(one[field] == other[field] for field in READS),
        lambda one, other: bool(one["right"]),
        lambda one, other: bool(other["right"]),
    ]
    rows = [heads, ["---"] * len(heads)]
    for arm in [*arms, "all"]:
        pairs = [(before[key], after[key]) for key in both if arm in ("all", key[0])]
        rows.append(
            [arm, str(len(pairs)), *(str(sum(test(*pair) for pair in pairs)) for test in tests)]
        )
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def report(arguments: argparse.Namespace) -> int:
    """Compare two runs; 1 if they differ."""
    before, after = rows_of(arguments.out), rows_of(arguments.other)
    print(table(before, after))
    lines = differences(before, after)
    print(f"\n{len(lines)} differences", *lines[:SHOWN_AT_MOST], sep="\n- " if lines else "\n")
    return 1 if lines or not before else 0


def main() -> None:
    """Compare two runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("other", type=Path)
    measurement_page.run(parser, report)


if __name__ == "__main__":
    main()
