"""What each answer strategy gets right, and what it costs, from the rows of a needle run.

    python -m tests.measure.answer_strategies runs/strategies/results.jsonl

Makes nothing itself: `reelbank needle preset=strategies out=runs/strategies` writes the rows. Cells
of accuracy are percent right with the 95 % interval over films; costs are means of a question.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from memory.storage import json_lines
from pipeline.scoring import cell
from tests.support import measurement_page

Row = dict[str, Any]


def report(arguments: argparse.Namespace) -> None:
    """Print the tables of one file of rows."""
    rows = json_lines.read(arguments.results)
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    print(f"\n| | {' | '.join(tasks)} |\n|{'---|' * (len(tasks) + 1)}")
    for arm in arms:
        own = [[row for row in rows if (row["arm"], row["task"]) == (arm, task)] for task in tasks]
        cells = (cell([(row["film"], float(row["right"])) for row in each]) for each in own)
        print(f"| {arm} | {' | '.join(cells)} |")
    head = "passes | contexts | findings reused | visual tokens | text tokens | seconds"
    print(f"\n| | minutes | n | {head} |\n|{'---|' * 9}")
    for arm in arms:
        for minutes in sorted({row["minutes"] for row in rows}):
            _cost(
                arm, f"{minutes:g}", [r for r in rows if (r["arm"], r["minutes"]) == (arm, minutes)]
            )
        _cost(arm, "all", [row for row in rows if row["arm"] == arm])
    print(f"\n| visual tokens of a question | {' | '.join(tasks)} |\n|{'---|' * (len(tasks) + 1)}")
    for arm in arms:
        own = [[row for row in rows if (row["arm"], row["task"]) == (arm, task)] for task in tasks]
        print(f"| {arm} | {' | '.join(_mean(each, 'visual_tokens') for each in own)} |")


def _cost(arm: str, minutes: str, rows: Sequence[Row]) -> None:
    if not rows:
        return
    names = ("calls", "contexts", "reused", "visual_tokens", "text_tokens")
    seconds = [row["seconds"].get("total", sum(row["seconds"].values())) for row in rows]
    means = " | ".join(_mean(rows, name) for name in names)
    print(f"| {arm} | {minutes} | {len(rows)} | {means} | {sum(seconds) / len(rows):.2f} |")


def _mean(rows: Sequence[Row], name: str) -> str:
    return f"{sum(row[name] for row in rows) / len(rows):,.1f}" if rows else "-"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path, help="results.jsonl of a run of the needle benchmark")
    measurement_page.run(parser, report)
