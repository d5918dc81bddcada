"""`reelbank find`: moments of one video or of a whole bank for a few words, without an answer.

Checks the settings and reports; pipeline/engine.py searches. Only the channel `kv`, planner=model
and encode=true load a backbone.
"""

import json
import re
import sys
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from encoders.errors import UserError
from memory.retrieval.fusion import Moment
from memory.storage.atomic import write_atomically
from pipeline.commands.output.encoding_messages import EncodingMessages, question_to_try
from pipeline.commands.output.moment_exports import check_files, report_files
from pipeline.commands.output.moments_html import moments_page
from pipeline.commands.output.thumbnails import Thumbnails
from pipeline.config.tasks.question_settings import FindSettings, MomentsFormat
from pipeline.config.units import format_span, parse_seconds, parse_span
from pipeline.engine import Engine
from pipeline.export.moment_list import ListedMoment, MomentList
from pipeline.moments.search import SearchResult

if TYPE_CHECKING:
    from pipeline.moments.picture_query import LikeMoment, PictureQuery

_HIT = re.compile(r"@\d+")
_SNIPPET = 120  # characters


def run(settings: FindSettings, engine: Engine | None = None) -> int:
    """reelbank find. engine: of these settings, from a caller that keeps it."""
    if settings.format == "html" and not Path(settings.out).absolute().parent.is_dir():
        raise UserError(
            f"out={settings.out} is in a folder that is not there; make it, or choose another path"
        )
    check_files(settings)
    picture = _picture(settings)
    sought = _sought(settings, picture)
    messages = EncodingMessages(settings)
    with Engine.of(settings) if engine is None else nullcontext(engine) as searching:
        result = searching.find(
            settings.query,
            [settings.video, *settings.also],
            start=settings.start,
            end=settings.end,
            asked_at=settings.asked_at,
            top=settings.top,
            widen=settings.widen,
            channels=settings.channels,
            encode=settings.encode,
            show_progress=messages,
            picture=picture,
        )
        _warn(result.notes)
        moments = [
            ListedMoment(
                moment.video_id, result.paths[moment.video_id], moment.start, moment.end,
                moment.score, moment.channels, snippet(moment),
            )
            for moment in result.moments
        ]  # fmt: skip
        match settings.format:
            case MomentsFormat.json:
                _report_json(settings, result, searching, picture)
            case MomentsFormat.html:
                _report_html(settings, sought, result, searching)
            case MomentsFormat.text:
                _report_text(result)
    report_files(moments, sought, settings)
    messages.suggest("ask", settings.video, question_to_try(settings))
    return 0


def _picture(settings: FindSettings) -> "PictureQuery | None":
    """What moments have to look like. UserError where two pictures are given, or none is there."""
    if not settings.image and not settings.like:
        return None
    if settings.image and settings.like:
        raise UserError("image= and like= are two pictures; give one of them")
    # it loads a decoder of films
    from pipeline.moments.picture_query import PictureFile, query_frames

    if settings.like:
        return _like_moment(settings.like)
    path = Path(settings.image).expanduser()
    query_frames(path)  # a wrong file is refused before a film is encoded
    return PictureFile(path)


def _like_moment(text: str) -> "LikeMoment":
    """The moment of "FILM@0:31", "FILM@0:31-0:45", or "@2": a hit of the last search. UserError
    where it names none."""
    from pipeline.moments.picture_query import LikeMoment  # it loads a decoder of films

    if _HIT.fullmatch(text):
        hit = MomentList.last().numbered(text)
        return LikeMoment(hit.video_id, hit.start, hit.end)
    video, _, at = text.rpartition("@")
    if not video.strip() or not at.strip():
        raise UserError(
            f"like={text} names no moment; say it as in FILM@0:31 or FILM@0:31-0:45, or give @2 "
            "for the second hit of the last search"
        )
    if "-" in at or "\u2013" in at:
        return LikeMoment(video, *parse_span("like", at))
    second = parse_seconds("like", at)
    return LikeMoment(video, second, second)


def _sought(settings: FindSettings, picture: "PictureQuery | None") -> str:
    """What is searched for, for people."""
    return ", ".join(filter(None, (picture.label if picture else "", settings.query)))


def _warn(notes: Iterable[str]) -> None:
    for note in notes:
        print(f"reelbank: warning: {note}", file=sys.stderr)


def _report_json(
    settings: FindSettings, result: SearchResult, engine: Engine, picture: "PictureQuery | None"
) -> None:
    pictures = _thumbnails(result, engine) if settings.thumbnails else None
    moments = [
        _json_moment(moment, result.paths[moment.video_id], pictures) for moment in result.moments
    ]
    # of several banks the engine knows the names; a resident process has its own name of one
    bank = engine.bank if settings.also_banks else settings.bank
    row: dict[str, Any] = {"query": settings.query}
    if picture is not None:
        row["picture"] = picture.label
    print(json.dumps(row | {"bank": bank, "moments": moments}))
    _warn(pictures.notes if pictures is not None else ())


def _thumbnails(result: SearchResult, engine: Engine) -> Thumbnails:
    from pipeline.picture_source import PictureSource  # it loads a decoder of films

    return Thumbnails(result.moments, PictureSource(engine.reader.catalog))


def _json_moment(moment: Moment, path: str, thumbnails: Thumbnails | None) -> dict[str, Any]:
    row: dict[str, Any] = {
        "video_id": moment.video_id,
        "path": path,
        "start": round(moment.start, 3),
        "end": round(moment.end, 3),
        "score": moment.score,
        "channels": list(moment.channels),
        "snippet": snippet(moment),
        "lines": [asdict(line) for line in moment.lines],
        "frame_at": round(moment.at, 3),
    }
    if thumbnails is not None:
        row["thumbnail"] = thumbnails.of(moment)
    return row


def _report_html(settings: FindSettings, sought: str, result: SearchResult, engine: Engine) -> None:
    thumbnails = _thumbnails(result, engine)
    page = moments_page(sought, result.moments, result.paths, thumbnails)
    # a path may have bytes that are not UTF-8
    write_atomically(Path(settings.out), page.encode(errors="backslashreplace"))
    print(f"{len(result.moments)} moments: {settings.out}")
    _warn(thumbnails.notes)


def _report_text(result: SearchResult) -> None:
    console = Console()
    table = Table()
    table.add_column("")  # the number behind @
    for name in ("when", "channels", "score", "words", "video"):
        table.add_column(name, overflow="fold")
    for number, moment in enumerate(result.moments, 1):
        cells = (
            format_span(moment.start, moment.end, hours="always"),
            "+".join(moment.channels),
            f"{moment.score:.4f}",
            snippet(moment),
            result.paths[moment.video_id],
        )
        table.add_row(f"@{number}", *cells)
        if not console.is_terminal:
            print("  ".join(cells))
    if console.is_terminal:
        console.print(table)
    if not result.moments:
        hint = "; the bank has no words yet, `reelbank ingest text=[subtitles,ocr]` adds them"
        print(f"nothing found{'' if result.has_text else hint}")


def snippet(moment: Moment) -> str:
    """The matching words, on one line."""
    text = " / ".join(dict.fromkeys(line.text for line in moment.lines))
    return text if len(text) <= _SNIPPET else text[: _SNIPPET - 1].rstrip() + "\u2026"
