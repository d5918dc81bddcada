"""A benchmark whose rows need no code: its YAML file says which field is which of our columns."""

from collections.abc import Iterator
from typing import Any

from encoders.errors import UserError
from pipeline.batch.annotations.benchmark import Benchmark, nested
from pipeline.batch.annotations.fields import (
    Values,
    inline_options,
    is_empty,
    letter_at,
    missing_field,
    options,
    spans,
)
from pipeline.batch.schema import LETTERS, Entry, RejectedRow

# of a question; the paths of video and subtitles are settings of their own
_COLUMNS = frozenset(
    "id question options answer option_number option_field asked_at evidence length task category "
    "duration group pair query accepted rule".split()
)


class FieldMap(Benchmark):
    """Rows whose fields have other names than our columns.

    A field is named by itself, or with a question mark behind it where rows may lack it or leave it
    empty: `evidence: clue_intervals?`. `options` takes one field with a list, or a list of fields
    with one option each. The right option is in `answer`, as its letter or its text; in
    `option_number`, counted from 0; or in `option_field`, which names one of the fields of
    `options`. `evidence` takes spans in seconds or as mm:ss-mm:ss, and is left out where a row is
    about several videos. A field with a list is joined by commas, except in `options` and
    `evidence`.
    """

    def __init__(
        self,
        *,
        video: str,
        prompt: str,
        subtitles: str = "",
        columns: dict[str, Any],
        rows: str = "",
        inline: bool = False,
    ) -> None:
        """columns: our column -> the benchmark's field. rows: field with a list of objects, each of
        them a row with the fields around it; "": a row is a row. inline: the options stand in the
        question, as lines "(A) ...". UserError on a column that does not exist.
        """
        super().__init__(video=video, prompt=prompt, subtitles=subtitles)
        unknown = sorted(set(columns) - _COLUMNS)
        if unknown or "question" not in columns:
            raise UserError(
                f"annotations.columns.{unknown[0]} is no column; use {', '.join(sorted(_COLUMNS))}"
                if unknown
                else "annotations.columns lacks the question; name its field"
            )
        self.columns, self.rows, self.inline = columns, rows, inline

    def unfold(self, entry: Entry) -> Iterator[Entry | RejectedRow]:
        if self.rows:
            yield from nested(entry, self.rows)
        else:
            yield entry

    def __call__(self, values: Values) -> list[Values]:
        fields = {ours: field for ours, field in self.columns.items() if isinstance(field, str)}
        row = {ours: _field(values, field) for ours, field in fields.items()}
        row = {ours: value for ours, value in row.items() if not is_empty(value)}
        row |= self._files(values) | self._options(values, row)
        if "evidence" in row:
            found = spans(str(self.columns["evidence"]).rstrip("?"), row["evidence"])
            row["evidence"] = found if isinstance(row["video"], str) else None
        return [{ours: _joined(ours, value) for ours, value in row.items()}]

    def _options(self, values: Values, row: Values) -> Values:
        """The options and the letter of the right one, as far as the row has them."""
        found: Values = {}
        fields = self.columns.get("options")
        if self.inline:
            found["question"], found["options"] = inline_options(str(row.get("question", "")))
        elif isinstance(fields, list):
            found["options"] = [_field(values, field) for field in fields]
        elif "options" in row:
            found["options"] = options(str(fields).rstrip("?"), row["options"])
        number, name = row.pop("option_number", None), row.pop("option_field", None)
        if number is not None and found.get("options"):
            field = str(self.columns["option_number"]).rstrip("?")
            found["answer"] = letter_at({field: number}, field)
        if name is not None and isinstance(fields, list):
            found["answer"] = LETTERS[fields.index(name)] if name in fields else str(name)
        return found


def _field(values: Values, field: str) -> Any:
    """The value of a field; None where it may be absent and is. RowError names a missing one."""
    name = field.rstrip("?")
    if name not in values and name == field:
        raise missing_field(name, values)
    return values.get(name)


def _joined(column: str, value: Any) -> Any:
    """Lists as one text, in columns that take a text."""
    if column in ("options", "evidence", "video") or not isinstance(value, list | tuple):
        return value
    return ", ".join(map(str, value))
