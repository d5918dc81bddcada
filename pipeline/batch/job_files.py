"""Read the rows of a JSONL, JSON, CSV, TSV, or Parquet file, each with its place. Knows no columns.

An unreadable row becomes a RejectedRow and reading continues; an unreadable file is a UserError.
Text that is no Unicode, such as half an emoji, makes a row unreadable.
Places count from 1: lines of JSONL and CSV (where the row begins), rows of Parquet, entries of
JSON.
"""

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow
import pyarrow.parquet

from encoders.errors import UserError
from pipeline.batch.schema import Entry, RejectedRow

_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
MAX_ROW_BYTES = 4 << 20  # of JSON; parsed, small values take a hundred times as much
MAX_JSON_BYTES = 512 << 20  # of a .json file, which is read as a whole
SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")


def rows(path: Path, *, whole_file: bool = False) -> Iterator[Entry | RejectedRow]:
    """All rows in order. UserError when the file is missing, of another format, or damaged.

    whole_file: a .json file that holds an object is one row.
    """
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
            yield from _json(path, whole_file)
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
        for number, line in enumerate(_lines(file), start=1):
            place = f"{path.name} line {number}"
            if len(line) > MAX_ROW_BYTES:
                yield RejectedRow(place, f"longer than {MAX_ROW_BYTES >> 20} MiB; write it shorter")
                continue
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
            except (ValueError, RecursionError) as error:  # thousands of digits, or of brackets
                yield RejectedRow(place, f"not JSON that can be read ({error}); write it shorter")


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """The lines of a file. Of one that is too long, only the begin."""
    while line := file.readline(MAX_ROW_BYTES + 1):
        yield line
        while len(line) > MAX_ROW_BYTES and not line.endswith(b"\n"):
            line = file.readline(MAX_ROW_BYTES + 1)


def _json(path: Path, whole_file: bool) -> Iterator[Entry | RejectedRow]:
    if path.stat().st_size > MAX_JSON_BYTES:
        raise UserError(
            f"{path} is larger than {MAX_JSON_BYTES >> 20} MiB; write it as .jsonl, one row a line"
        )
    try:
        data = json.loads(path.read_bytes().decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON in UTF-8 ({error}); check jobs=") from error
    if whole_file and isinstance(data, dict) and data:
        yield _entry(path.name, data)
        return
    lists = data.values() if isinstance(data, dict) else [data]
    entries = next((values for values in lists if isinstance(values, list)), None)
    if entries is None:
        raise UserError(f"{path} holds no list of rows; check jobs=")
    for number, values in enumerate(entries, start=1):
        yield _entry(f"{path.name} entry {number}", values)


def _entry(place: str, values: Any) -> Entry | RejectedRow:
    if not isinstance(values, dict):
        return RejectedRow(place, "not an object with named values")
    for name, value in values.items():
        if not (_is_unicode(name) and _is_unicode(value)):
            return RejectedRow(
                place, f"{name!a} holds half a character, as a cut emoji does; write whole ones"
            )
    return Entry(place, values)


def _is_unicode(value: Any) -> bool:
    """False where a text, at any depth, holds a lone surrogate; no file and no model takes it."""
    if isinstance(value, dict):
        return all(_is_unicode(name) and _is_unicode(inner) for name, inner in value.items())
    if isinstance(value, list):
        return all(map(_is_unicode, value))
    return not (isinstance(value, str) and re.search(r"[\ud800-\udfff]", value))


def _csv(path: Path) -> Iterator[Entry | RejectedRow]:
    # invalid UTF-8 becomes lone surrogates, so that one bad row does not hide the others
    text = path.read_bytes().decode("utf-8-sig", errors="surrogateescape")
    delimiter = "\t" if path.suffix == ".tsv" else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
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
            _refuse_other_delimiter(path, names, delimiter)
        elif len(cells) != len(names):
            yield RejectedRow(
                place,
                f"{len(cells)} cells under {len(names)} column names; check commas and quotes",
            )
        else:
            yield Entry(place, dict(zip(names, cells, strict=True)))


def _refuse_other_delimiter(path: Path, names: list[str], delimiter: str) -> None:
    """UserError where the column names stand in one cell, as a spreadsheet with semicolons has
    them.
    """
    other = next((sign for sign in _DELIMITERS if sign in names[0]), None)
    if len(names) == 1 and other is not None:
        needed = _DELIMITERS[delimiter]
        raise UserError(
            f"{path} has {_DELIMITERS[other]} between its columns, and a {path.suffix} file needs "
            f"{needed}; save it with {needed}"
        )


def _parquet(path: Path) -> Iterator[Entry | RejectedRow]:
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches():
                for values in _batch_rows(batch):
                    number += 1
                    place = f"{path.name} row {number}"
                    try:
                        yield _entry(place, _as_texts(values))
                    except UnicodeDecodeError:
                        yield RejectedRow(place, "not UTF-8; write its texts as UTF-8")
    except pyarrow.ArrowException as error:
        raise UserError(
            f"{path} is not a Parquet file that can be read ({str(error).splitlines()[0]})"
        ) from error


def _batch_rows(batch: pyarrow.RecordBatch) -> Iterator[Any]:
    """The rows; of one with a text that is not UTF-8, which Parquet does not prevent, the bytes."""
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        for number in range(batch.num_rows):
            try:
                yield from batch.slice(number, 1).to_pylist()
            except UnicodeDecodeError as error:
                yield error.object


def _as_texts(value: Any) -> Any:
    """The value with texts for bytes: many programs write texts as bytes. UnicodeDecodeError."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, list):
        return [_as_texts(inner) for inner in value]
    if isinstance(value, dict):
        return {name: _as_texts(inner) for name, inner in value.items()}
    return value
