"""Files of records: JSON and JSONL of our own schema, COCO's detections, Whisper's segments, and
subtitle files. All rows of a file are right, or it is refused.

docs/guides/import-records.md has the schema.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from encoders.errors import UserError
from encoders.text.lines import clean_text
from encoders.text.records.record import SPEECH, Record, RecordRules
from encoders.text.sightings.detector import CLASSES
from encoders.text.subtitle_files import read_cues
from encoders.text.subtitles import SUFFIXES

MOST_BYTES = 64_000_000
_MOST_NAMED = 3  # bad rows that a refusal names
_Row = tuple[str, Any]  # its place in the file, and what stands there


def read_records(path: Path, rules: RecordRules) -> tuple[list[Record], str]:
    """The records of a file in its order, and a message about it ("" if there is none).

    UserError for a file that cannot be read, and for one with bad rows, which it names.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "is not there"
        raise UserError(f"{path} {what}; give a file of records")
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise UserError(
            f"{path} has {size / 1e6:.0f} MB, and {MOST_BYTES / 1e6:.0f} MB can be imported; split "
            "it, or leave out rows with low scores"
        )
    if path.suffix.lower() in SUFFIXES:
        rows, kind, note = _cues(path)
    else:
        (rows, kind), note = _json_rows(path), ""
    return _checked(path, rows, replace(rules, kind=rules.kind or kind)), note


def _cues(path: Path) -> tuple[list[_Row], str, str]:
    """Rows of a subtitle file, their usual kind, and a message."""
    found = read_cues(path)
    if found.impossible:
        wrong = [f"{place}: its times make no sense" for place in found.impossible]
        raise _refusal(path, wrong)
    if not found.cues:
        raise UserError(f"{found.note or f'{path} has no subtitle in it'}; nothing was imported")
    rows = [
        (_place(start, found.lines), {"start": start, "end": end, "text": words})
        for start, end, words in found.cues
        if clean_text(words)
    ]
    return rows, SPEECH, found.note


def _place(start: float, lines: Mapping[float, int]) -> str:
    return f"line {lines[start]}" if start in lines else f"the cue at {start:g} s"


def _checked(path: Path, rows: list[_Row], rules: RecordRules) -> list[Record]:
    records, wrong = list[Record](), list[str]()
    for place, row in rows:
        try:
            records.append(rules.record(row))
        except ValueError as error:
            wrong.append(f"{place}: {error}")
    if wrong:
        raise _refusal(path, wrong)
    if not records:
        raise UserError(f"{path} has no record in it; nothing was imported")
    return records


def _refusal(path: Path, wrong: list[str]) -> UserError:
    """wrong: for each bad row, its place and what is wrong with it."""
    more = f"; and {len(wrong) - _MOST_NAMED} more rows" if len(wrong) > _MOST_NAMED else ""
    return UserError(
        f"{path} cannot be imported; {'; '.join(wrong[:_MOST_NAMED])}{more}; nothing of it was "
        "imported"
    )


def _json_rows(path: Path) -> tuple[list[_Row], str]:
    """The rows of JSON or JSONL, those of COCO in our own words; and their usual kind, "" where it
    depends on the row."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8; save it as UTF-8") from error
    try:
        whole = json.loads(text)
    except RecursionError as error:
        raise UserError(f"{path} is too deep to be a file of records") from error
    except json.JSONDecodeError as error:
        if not _is_object(next(filter(str.strip, text.split("\n")), "")):
            raise UserError(
                f"{path} is no JSON; line {error.lineno}: {error.msg.lower()}"
            ) from error
        return list(_lines(text)), ""
    if isinstance(whole, Mapping) and isinstance(whole.get("segments"), list):
        segments = enumerate(whole["segments"], start=1)
        # Whisper leaves some without words
        rows = [
            (f"segment {number}", row)
            for number, row in segments
            if not isinstance(row, Mapping) or str(row.get("text", "")).strip()
        ]
        return rows, SPEECH
    if isinstance(whole, Mapping) and isinstance(whole.get("annotations"), list):
        return list(_coco(whole["annotations"], whole, "annotation")), ""
    if isinstance(whole, list):
        return list(_coco(whole, {}, "row")), ""
    return [("line 1", whole)], ""


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _lines(text: str) -> Iterator[_Row]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            yield f"line {number}", json.loads(line)
        except (ValueError, RecursionError):
            yield f"line {number}", None


def _coco(rows: list[Any], whole: Mapping[str, Any], name: str) -> Iterator[_Row]:
    """Rows of COCO (Lin et al., arXiv 1405.0312) in our words; other rows as they are. A picture's
    id is the number of its frame, unless the picture states one.

    whole: the data set, with its pictures and categories; {}: none, and the 80 classes of COCO.
    """
    names: dict[Any, Any] = dict(enumerate(CLASSES))
    if _objects(whole, "categories"):
        names = {one.get("id"): one.get("name") for one in _objects(whole, "categories")}
    pictures = {one.get("id"): one for one in _objects(whole, "images")}
    for number, row in enumerate(rows, start=1):
        place = f"{name} {number}"
        if not isinstance(row, Mapping) or "category_id" not in row or "image_id" not in row:
            yield place, row
            continue
        own = {"frame": row["image_id"], "class": names.get(row["category_id"]) or None}
        own |= {"score": row.get("score"), "box": row.get("bbox")}
        picture = pictures.get(row["image_id"], {})
        frame = picture.get("frame_index", picture.get("frame_id"))
        own |= {"frame": own["frame"] if frame is None else frame}
        own |= {"width": picture.get("width"), "height": picture.get("height")}
        yield place, own


def _objects(whole: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    rows = whole.get(key)
    return [one for one in rows if isinstance(one, Mapping)] if isinstance(rows, list) else []
