"""Moments as a table or as cues: CSV, JSON, and WebVTT of one film.

Knows no film and no search.
"""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from encoders.errors import UserError
from pipeline.export.chapter_list import ChapterList
from pipeline.export.moment_list import ListedMoment
from pipeline.export.text_file import write_text

FORMATS = (".csv", ".json", ".vtt")
_COLUMNS = ("number", "path", "start", "end", "score", "channels", "words", "video_id")


def write_table(moments: Sequence[ListedMoment], path: Path, query: str) -> None:
    """Write the moments to a path; its suffix says the format. query: their words or question.

    UserError where the file cannot be written, and for cues of several films.
    """
    match path.suffix.lower():
        case ".csv":
            text = _csv(moments)
        case ".json":
            rows = [{"number": number} | asdict(one) for number, one in enumerate(moments, 1)]
            text = json.dumps({"query": query, "moments": rows}, indent=1, ensure_ascii=False)
        case _:
            text = _cues(moments, path)
    write_text(path, text)


def _csv(moments: Sequence[ListedMoment]) -> str:
    """One row a moment, as RFC 4180 says."""
    file = io.StringIO()
    writer = csv.DictWriter(file, _COLUMNS)
    writer.writeheader()
    for number, moment in enumerate(moments, 1):
        row = asdict(moment) | {"number": number, "channels": "+".join(moment.channels)}
        writer.writerow(row | {"score": "" if moment.score is None else moment.score})
    return file.getvalue()


def _cues(moments: Sequence[ListedMoment], path: Path) -> str:
    """A cue for each moment, in time order, for a player's list of chapters."""
    films = sorted({moment.path for moment in moments})
    if len(films) > 1:
        raise UserError(
            f"{path} is about one film, and the moments are of {len(films)}: "
            f"{', '.join(films[:3])}; search one film, or use a name that ends with .csv"
        )
    rows = sorted(enumerate(moments, 1), key=lambda row: (row[1].start, row[0]))
    spans = [(moment.start, moment.end) for _, moment in rows]
    words = [one.words or "+".join(one.channels) or "moment" for _, one in rows]
    titles = [f"{number}: {text}" for (number, _), text in zip(rows, words, strict=True)]
    return ChapterList.of(spans, titles).webvtt()
