"""A training curve as CSV that survives a resume. Knows nothing of what is trained."""

import csv
from pathlib import Path


class TrainingCurve:
    """Rows of numbers, written at once; a row may lack columns.

    keep: number of rows of an earlier run to keep.
    """

    def __init__(self, path: Path, keep: int = 0) -> None:
        self.path = path
        self.rows: list[dict[str, float]] = []
        if keep and path.exists():
            with path.open() as file:
                rows = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
            self.rows = rows[:keep]

    def add(self, row: dict[str, float]) -> None:
        """Append a row and rewrite the file (a curve is short)."""
        self.rows.append(row)
        columns = list(dict.fromkeys(name for r in self.rows for name in r))
        with self.path.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(self.rows)
