"""Read the rows of a JSONL, JSON, CSV, TSV, or Parquet file, each with its place. Knows no columns.

An unreadable row becomes a RejectedRow and reading continues; an unreadable file is a UserError.
Places count from 1: lines of JSONL and CSV (where the row begins), rows of Parquet, entries of
JSON.
"""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from encoders.errors import UserError
from pipeline.batch.schema import Entry, RejectedRow

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")


def rows(path: Path) -> Iterator[Entry | RejectedRow]:
    """All rows in order. UserError when the file is missing, of another format, or damaged."""
    if not path.is_file():
        raise UserError(f"There is no file {path}; check jobs=")
    if path.suffix not in SUFFIXES:
        raise UserError(
            f"{path} is of no known kind; give a file that ends in {', '.join(SUFFIXES)}"
        )
    try:
        if path.suffix == ".parquet":
            yield from _parquet(path)
        elif path.suffix == ".json":
            yield from _json(path)
        elif path.suffix in (".csv", ".tsv"):
            yield from _csv(path)
        else:
            yield from _jsonl(path)
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror or error}); check jobs="
        ) from error


def _jsonl(path: Path) -> Iterator[Entry | RejectedRow]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            place = f"{path.name} line {number}"
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
                if text:
                    yield _entry(place, json.loads(text))
            except UnicodeDecodeError as error:
                yield RejectedRow(
                    place,
                    f"byte {error.start + 1} of the line is not UTF-8; save the file as UTF-8",
                )
            except json.JSONDecodeError as error:
                yield RejectedRow(
                    place,
                    f"not JSON ({error.msg} at column {error.colno}); write one object a line",
                )


def _json(path: Path) -> Iterator[Entry | RejectedRow]:
    try:
        data = json.loads(path.read_bytes().decode("utf-8-sig"))
    except ValueError as error:
        raise UserError(f"{path} is not JSON in UTF-8 ({error}); check jobs=") from error
    entries = (
        data
        if isinstance(data, list)
        else next((v for v in data.values() if isinstance(v, list)), None)
    )
    if entries is None:
        raise UserError(f"{path} holds no list of rows; check jobs=")
    for number, values in enumerate(entries, start=1):
        yield _entry(f"{path.name} entry {number}", values)


def _entry(place: str, values: Any) -> Entry | RejectedRow:
    return (
        Entry(place, values)
        if isinstance(values, dict)
        else RejectedRow(place, "not an object with named values")
    )


def _csv(path: Path) -> Iterator[Entry | RejectedRow]:
    # invalid UTF-8 becomes lone surrogates, so that one bad row does not hide the others
    text = path.read_bytes().decode("utf-8-sig", errors="surrogateescape")
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter="\t" if path.suffix == ".tsv" else ",", strict=True
    )
    names: list[str] | None = None
    last = 0
    while True:
        place = f"{path.name} line {last + 1}"
        try:
            cells = next(reader, None)
        except csv.Error as error:
            yield RejectedRow(place, f"not CSV ({error}); check the quotes")
            last = reader.line_num
            continue
        if cells is None:
            return
        last = reader.line_num
        if not any(cells):
            continue
        if any("\udc80" <= char <= "\udcff" for cell in cells for char in cell):
            if names is None:
                raise UserError(
                    f"{place} holds the column names and is not UTF-8; save the file as UTF-8"
                )
            yield RejectedRow(place, "not UTF-8; save the file as UTF-8")
        elif names is None:
            names = [cell.strip() for cell in cells]
        elif len(cells) != len(names):
            yield RejectedRow(
                place,
                f"{len(cells)} cells under {len(names)} column names; check commas and quotes",
            )
        else:
            yield Entry(place, dict(zip(names, cells, strict=True)))


def _parquet(path: Path) -> Iterator[Entry | RejectedRow]:
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches():
                for values in batch.to_pylist():
                    number += 1
                    yield Entry(f"{path.name} row {number}", values)
    except pyarrow.ArrowException as error:
        raise UserError(
            f"{path} is not a Parquet file that can be read ({str(error).splitlines()[0]})"
        ) from error
