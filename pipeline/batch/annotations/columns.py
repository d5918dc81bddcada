"""Our columns: the value of each in a row -> what a job holds. RowError names the column.

Knows no benchmark, no file and no model.
"""

import json
import math
import re
from dataclasses import replace
from typing import Any

from encoders.errors import UserError
from pipeline.batch.schema import LETTERS, RowError, Watch
from pipeline.config import units
from pipeline.scorers.schema import CONTAINS, NUMBER

Values = dict[str, Any]

_PREFIX = re.compile(r"^\s*\(?([A-Za-z])[.):]\s*(.*)$", re.DOTALL)


def text(values: dict[str, Any], column: str) -> str:
    """A required text column. RowError when it is missing or empty."""
    if column not in values:
        raise RowError(f"the column {column} is missing; it has {', '.join(values) or 'none'}")
    value = "" if values[column] is None else str(values[column]).strip()
    if not value:
        raise RowError(f"the column {column} is empty")
    return value


def seconds(values: dict[str, Any], column: str) -> float | None:
    """Seconds, "mm:ss", or "hh:mm:ss" as seconds; None when the column is empty."""
    value = values.get(column)
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return None
    try:
        return units.parse_seconds(column, value)
    except UserError as error:
        raise RowError(str(error)) from error


def strip_letters(options: tuple[str, ...]) -> tuple[str, ...]:
    """Options without the letters A, B, C, ... before them, if all of them have one."""
    matches = [_PREFIX.match(option) for option in options]
    if all(
        m is not None and m[1].upper() == LETTERS[i] and m[2].strip() for i, m in enumerate(matches)
    ):
        return tuple(m[2].strip() for m in matches if m is not None)
    return options


def _texts(column: str, value: Any) -> tuple[str, ...]:
    """Texts from a list, a JSON list, or texts separated by | (CSV)."""
    if value is None or value == "":
        return ()
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.lstrip().startswith("[") else value.split("|")
        except json.JSONDecodeError as error:
            raise RowError(
                f"{column}={value!r} is not a list in JSON; write it so, or put | between the texts"
            ) from error
    if not isinstance(value, list | tuple):
        raise RowError(f"{column}={value!r} is no list")
    return tuple(str(one).strip() for one in value if one is not None)


def options(value: Any) -> tuple[str, ...]:
    if value is None or value == "":
        return ()
    options = _texts("options", value)
    if not 2 <= len(options) <= len(LETTERS) or not all(options):
        raise RowError(
            f"options={list(options)} must be 2 to {len(LETTERS)} texts, none of them empty"
        )
    return options


def accepted_answers(value: Any, answer: str, options: tuple[str, ...]) -> tuple[str, ...]:
    """Further right answers; only an open question that has one can have more."""
    accepted = _texts("accepted", value)
    if accepted and (options or not answer):
        raise RowError(
            f"accepted={list(accepted)} are further answers to an open question with an answer; "
            "leave it out"
        )
    if not all(accepted):
        raise RowError(f"accepted={list(accepted)} holds an empty text; leave that out")
    return accepted


def letter_of(answer: str, options: tuple[str, ...]) -> str | None:
    """The letter of the right option, from its letter or its text; None when neither matches."""
    texts = [option.casefold() for option in options]
    if texts.count(answer.casefold()) == 1:
        return LETTERS[texts.index(answer.casefold())]
    match = re.fullmatch(r"\(?([A-Za-z])(?:[.):](.*))?", answer, re.DOTALL)
    if match is None or match[1].upper() not in LETTERS[: len(options)]:
        return None
    letter = match[1].upper()
    rest = (match[2] or "").strip()
    return letter if not rest or rest.casefold() == texts[LETTERS.index(letter)] else None


def prompt(value: Any) -> str:
    if value and "{question}" not in str(value):
        raise RowError(f"prompt={value!r} asks nothing; put {{question}} into it")
    return str(value or "")


def rule(value: Any) -> str:
    if value not in (None, "", NUMBER, CONTAINS):
        raise RowError(
            f"rule={value!r} is not known; write {NUMBER} or {CONTAINS}, or leave it out"
        )
    return str(value or "")


def evidence(value: Any, length: float | None) -> tuple[tuple[float, float], ...]:
    """length: seconds of the video as the row states them; None: it does not."""
    spans = spans_in("evidence", value)
    outside = next((one for one in spans if length is not None and one[1] > length + 1), None)
    if outside is not None:  # a second more, as annotations round
        raise RowError(f"evidence={list(outside)} lies outside of a video of {length:g} s")
    return spans


def spans_in(column: str, value: Any) -> tuple[tuple[float, float], ...]:
    if value is None or value == "":
        return ()
    try:
        spans = json.loads(value) if isinstance(value, str) else value
        parsed = tuple((float(start), float(end)) for start, end in spans)
    except (ValueError, TypeError) as error:
        raise RowError(f"{column}={value!r} is no list of [start, end] in seconds") from error
    bad = next((one for one in parsed if not 0 <= one[0] <= one[1] < math.inf), None)
    if bad is not None:
        raise RowError(f"{column} holds {list(bad)}, which is no start and end in seconds")
    return parsed


def watch_of(values: dict[str, Any]) -> Watch | None:
    """How a question waits for its moment: an object with prompt, due, until, and optionally every
    and tolerance."""
    value = values.get("watch")
    if value in (None, ""):
        return None
    if not isinstance(value, dict) or not {"prompt", "due", "until"} <= value.keys():
        raise RowError(f"watch={value!r} is no object with prompt, due and until")
    if values.get("options"):
        raise RowError("a question with watch has no options; give the words of its answer")
    due, until = seconds(value, "due"), seconds(value, "until")
    asked_at = seconds(values, "asked_at")
    if asked_at is None or due is None or until is None or not asked_at <= due <= until:
        raise RowError(
            f"asked_at={asked_at}, watch.due={due} and watch.until={until} must come in this order"
        )
    watch = Watch(text(value, "prompt"), due, until)
    every, tolerance = seconds(value, "every"), seconds(value, "tolerance")
    if every == 0:
        raise RowError("watch.every=0 never ends; give seconds above 0")
    watch = watch if every is None else replace(watch, every=every)
    return watch if tolerance is None else replace(watch, tolerance=tolerance)
