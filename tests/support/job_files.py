"""Files of questions that a test writes, and what is read from them."""

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from pipeline.batch import job_files, jobs
from pipeline.batch.annotations.benchmark import OwnColumns
from pipeline.batch.jobs import Annotations
from pipeline.batch.schema import Job, RejectedRow
from pipeline.config.compose import compose
from pipeline.config.parts import instantiate


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows as the ending of the path says; -> the path."""
    names = list(dict.fromkeys(key for row in rows for key in row))
    if path.suffix in (".jsonl", ".ndjson"):
        path.write_text(
            "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8"
        )
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    elif path.suffix == ".parquet":
        pyarrow.parquet.write_table(
            pyarrow.table({name: [row.get(name) for row in rows] for name in names}), path
        )
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writerow(names)
            for row in rows:
                cells = [row.get(name) for name in names]
                writer.writerow(
                    [json.dumps(cell) if isinstance(cell, list) else cell for cell in cells]
                )
    return path


def collected(
    path: Path, annotations: Any = None, **options: Any
) -> tuple[list[Job], list[RejectedRow]]:
    """The jobs and the rejected rows of a file."""
    annotations = annotations or OwnColumns(prompt="{question}")
    entries = job_files.rows(path, whole_file=annotations.whole_file)
    return jobs.collect(entries, annotations, path.parent, **options)


def benchmark(option: str, *settings: str) -> Annotations:
    """The reader of a benchmark."""
    config = compose("batch", [f"annotations={option}", *settings])
    return instantiate("annotations", config.annotations)
