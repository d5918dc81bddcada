"""Fields of a benchmark's row as values of our columns.

Knows how benchmarks write options, numbers of options and spans of time; no benchmark by name.
RowError names the field and what it should hold.
"""

import ast
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from encoders.errors import UserError
from pipeline.batch.schema import LETTERS, RowError
from pipeline.config import units

Values = dict[str, Any]
Seconds = list[float]  # start and end

# options inside a question, one per line
_INLINE_OPTION = re.compile(r"^\s*\(([A-Z])\)\s*(.+?)\s*$", re.MULTILINE)
# two times with a dash between them; TVQA writes nan-nan where there is none
_TIME = r"[\d:.]+|nan"
_SPAN = re.compile(rf"\s*({_TIME})\s*(?:-|–|to)\s*({_TIME})\s*")


def select(values: Values, *same: str, **renamed: str) -> Values:
    """Rename fields to our columns. RowError names a missing one."""
    columns = {name: name for name in same} | renamed
    missing = [theirs for theirs in columns.values() if theirs not in values]
    if missing:
        raise missing_field(missing[0], values)
    return {ours: values[theirs] for ours, theirs in columns.items()}


def missing_field(field: str, values: Mapping[str, Any]) -> RowError:
    """The error of a row that lacks a field."""
    return RowError(f"the field {field} is missing; it has {', '.join(values) or 'none'}")


def objects(values: Values, field: str) -> list[Values]:
    """A field that is a list of objects."""
    found = values.get(field)
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise RowError(f"the field {field} is no list of objects")
    return found


def letter_at(values: Values, field: str) -> str | None:
    """The letter of an option's number, counted from 0; None when the field is absent or empty."""
    value = values.get(field)
    if is_empty(value):
        return None
    number = re.fullmatch(r"(\d+)(?:\.0)?", str(value).strip())  # a table may hold 2 as 2.0
    if number is None or int(number[1]) >= len(LETTERS):
        raise RowError(f"{field}={value!r} is no number of an option, counted from 0")
    return LETTERS[int(number[1])]


def number(values: Values, field: str) -> float:
    """A field that is a number of at least 0."""
    value = values.get(field)
    try:
        found = float(value) if not isinstance(value, bool) else -1.0  # type: ignore[arg-type]
    except (TypeError, ValueError):
        found = -1.0
    if not 0 <= found < float("inf"):
        raise RowError(f"{field}={value!r} is no number of at least 0")
    return found


def is_empty(value: Any) -> bool:
    """True for null, an empty text, and a number that is none."""
    return value is None or value == "" or (isinstance(value, float) and value != value)


def options(field: str, value: Any) -> list[str]:
    """Options from a list, or from a list as JSON or Python writes it. An option that is itself a
    list, such as a sequence of outfits, becomes one text."""
    if isinstance(value, str):
        value = _literal(value)
    if not isinstance(value, list | tuple):
        raise RowError(f"the field {field} is no list of options")
    return [
        ", ".join(map(str, option)) if isinstance(option, list | tuple) else str(option)
        for option in value
        if option is not None
    ]


def inline_options(question: str) -> tuple[str, list[str]]:
    """A question and its options, which stand in it as lines "(A) ...". RowError without them."""
    inline = _INLINE_OPTION.findall(question)
    if [letter for letter, _ in inline] != list(LETTERS[: len(inline)]) or len(inline) < 2:
        raise RowError(
            "the question holds no options (A) ... on lines of their own, and there are no "
            "candidates"
        )
    begin = _INLINE_OPTION.search(question)
    return question[: begin.start() if begin else None].strip(), [text for _, text in inline]


def spans(field: str, value: Any) -> list[Seconds]:
    """Spans of time in seconds: [[2, 5.5], ...], one [2, 5.5], "02:15-03:10", several of these in a
    list or parted by commas, or any of these as JSON. A span without times, "nan-nan", is none."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        value = _literal(value)
    if is_empty(value):
        return []
    if isinstance(value, str):
        value = re.split(r"[,;]\s*", value.strip())
    if not isinstance(value, list | tuple):
        raise _no_spans(field, value)
    if len(value) == 2 and all(isinstance(one, int | float) for one in value):
        value = [value]
    found = [_span(field, one) for one in value]
    return [one for one in found if one is not None]


def path_of(template: str, values: Mapping[str, Any]) -> str | list[str]:
    """A path template with the row's fields in it. A field with a list gives a path for each of its
    elements. RowError names a field that the row lacks."""
    lists = [name for name, value in values.items() if isinstance(value, list | tuple)]
    name = next((name for name in lists if f"{{{name}}}" in template), None)
    try:
        if name is None:
            return template.format_map(values)
        return [template.format_map({**values, name: one}) for one in values[name]]
    except KeyError as error:
        raise RowError(f"the field {error.args[0]}, which names the video, is missing") from error


def _span(field: str, value: Any) -> Seconds | None:
    if isinstance(value, str):
        match = _SPAN.fullmatch(value)
        if match is None:
            raise _no_spans(field, value)
        value = match.groups()
    if not isinstance(value, Sequence) or len(value) != 2:
        raise _no_spans(field, value)
    if all(str(one).lower() == "nan" for one in value):
        return None
    try:
        start, end = (units.parse_seconds(field, one) for one in value)
    except UserError as error:
        raise _no_spans(field, value) from error
    if end < start:
        raise RowError(f"{field}={list(value)} ends before it begins")
    return [start, end]


def _no_spans(field: str, value: Any) -> RowError:
    return RowError(f"{field}={value!r} is no span of time, such as [2, 5.5] or 00:02-00:05")


def _literal(text: str) -> Any:
    """A value as JSON or Python writes it; the text itself where it is neither."""
    for read in (json.loads, ast.literal_eval):
        try:
            return read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return text
