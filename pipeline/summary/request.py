"""One summary, from the words of a request to its records: the way of the command and of Python.

Knows an engine, which encodes a film that the bank lacks and searches; no command line, no page.
"""

import math
import threading
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from encoders.errors import UserError
from memory.storage.catalog import VideoRow
from memory.storage.manifest import BankBusyError
from pipeline.config.tasks.question_settings import SummaryMethod
from pipeline.config.units import format_time
from pipeline.summary.schema import FilmSummary, Summary
from pipeline.summary.scope import Scope
from pipeline.summary.summarizer import Excerpt, Summarizer
from pipeline.videos import has_all

if TYPE_CHECKING:
    from collections.abc import Callable

    from encoders.schema import VideoInfo
    from pipeline.engine import Engine
    from pipeline.ingest.ingester import Progress
    from pipeline.summary.model_writer import ModelWriter

    ShowProgress = Callable[[VideoInfo], AbstractContextManager[Progress]]

_FEWEST, _MOST = 3, 12  # sentences of the overview
_AROUND_S = 5.0  # context on each side of a moment that a search found
NO_WORDS = (
    "no words were found in {films}, so its chapters are scenes; text=[subtitles,asr,ocr] with "
    "`reelbank add` looks for words"
)


@dataclass(frozen=True, slots=True)
class SummaryRequest:
    """What to summarize, and how long the summary is."""

    video: str = ""  # a file, or the id of a video; "": all that `when` or `query` names
    when: str = ""  # words of time
    query: str = ""  # a search, whose moments are the chapters
    start: float = 0.0  # seconds of video time
    end: float | None = None
    top: int = 10  # moments of the search
    shortest_chapter: float | None = None  # seconds; None: 1/20 of the excerpt, and 30 or more
    sentences: int | None = None  # of the overview; None: one for each chapter, 3 to 12
    chapter_sentences: int = 2
    method: SummaryMethod = SummaryMethod.auto


def _no_progress(info: "VideoInfo") -> "AbstractContextManager[Progress]":
    return nullcontext(lambda seconds, nbytes: None)


def summarize(
    engine: "Engine",
    request: SummaryRequest,
    show_progress: "ShowProgress" = _no_progress,
    cancelled: threading.Event | None = None,
) -> Summary:
    """The summary of a request. A film that the bank lacks is encoded first.

    cancelled: once it is set, Cancelled is raised between two passes of a model; a later call goes
    on from there. UserError on a request that makes no sense, where the film is not there, and
    where nothing is left to summarize.
    """
    _check(request)
    row, notes = _row(engine, request, show_progress)
    if request.query:
        excerpts, more = _search(engine, request, row)
    else:
        scope = Scope(engine.reader, request.start, request.end, request.when)
        excerpts, more = scope.of_films([row] if row is not None else engine.videos())
    writer = _writer(engine, request.method, cancelled)
    summarizer = Summarizer(
        engine.reader, request.shortest_chapter, request.chapter_sentences, writer
    )
    films = tuple(summarizer.summarize(excerpt) for excerpt in excerpts)
    return Summary(
        _title(request, films),
        films,
        summarizer.overview(films, _overview(request, films)),
        tuple(note for note in (*notes, *more, _no_words(films)) if note),
        "" if writer is None else writer.model,
        0 if writer is None else len(writer.log.calls),
    )


def _writer(
    engine: "Engine", method: SummaryMethod, cancelled: threading.Event | None
) -> "ModelWriter | None":
    """The model that writes; None where sentences are quoted. UserError for a model that was asked
    for and reads no text."""
    knows_cards_alone = engine.settings.backbone.get("questions") == "needle_world"
    if method is SummaryMethod.abstractive and knows_cards_alone:
        raise UserError(
            "method=abstractive needs a model that reads text, and the embedded one knows only "
            "cards; choose a backbone=, or method=extractive"
        )
    if method is SummaryMethod.extractive or knows_cards_alone:
        return None
    from pipeline.summary.model_writer import ModelWriter  # it loads torch

    sees = engine.settings.backbone.get("images") is not False  # of a model behind an address
    return ModelWriter(engine.qa.answerer, sees, cancelled)


def _check(request: SummaryRequest) -> None:
    """UserError on values out of range."""
    if request.chapter_sentences < 0 or (request.sentences is not None and request.sentences < 0):
        raise UserError("A summary has no fewer than 0 sentences; use 0 or more")
    if request.shortest_chapter is not None and not request.shortest_chapter > 0:
        raise UserError(
            f"shortest_chapter={request.shortest_chapter:g} is no length; give seconds, above 0"
        )
    if request.top < 1:
        raise UserError(f"top={request.top} finds nothing; use 1 or more")
    if not request.start >= 0 or (request.end is not None and not request.end > request.start):
        end = "the end" if request.end is None else f"{request.end:g} s"
        raise UserError(
            f"The stretch from {request.start:g} s to {end} is empty; give a start= that comes "
            "before end="
        )


def _row(
    engine: "Engine", request: SummaryRequest, show_progress: "ShowProgress"
) -> tuple[VideoRow | None, list[str]]:
    """The one video that is meant, encoded if the bank lacks it, and what the user must know."""
    if not request.video:
        rows = engine.videos()
        if not rows:
            raise UserError(f"bank {engine.bank} has no video yet; name a film, or add one first")
        if request.when or request.query or len(rows) == 1:
            return (rows[0] if len(rows) == 1 else None), []
        raise UserError(
            f"bank {engine.bank} has {len(rows)} videos; name a film, or a time with --when"
        )
    path = Path(request.video)
    if not path.is_file():
        if not any(_is_meant(each, request.video) for each in engine.videos()):
            from encoders.sources.container import check_file

            check_file(path)
        return engine.video(request.video), []
    from encoders.sources.container import fingerprint  # it loads a decoder of films

    video_id = fingerprint(path)  # of the whole file: the bank may have parts of it as well
    rows = engine.videos()  # none where there is no bank
    if rows and has_all(engine.reader, path, engine.settings.text):
        return engine.video(video_id), []
    try:
        report = engine.add(request.video, show_progress)
        return engine.video(report.video_id), [report.warning]
    except BankBusyError:
        row = engine.video(video_id)
        end = engine.reader.catalog.next(row.info.video_id)[1]
        note = (
            f"another process writes bank {engine.bank}; the summary is of the first "
            f"{format_time(end)}"
        )
        return row, [note]


def _is_meant(row: VideoRow, video: str) -> bool:
    return video in (row.info.video_id, row.info.path) or row.info.path == str(
        Path(video).absolute()
    )


def _search(
    engine: "Engine", request: SummaryRequest, row: VideoRow | None
) -> tuple[list[Excerpt], list[str]]:
    """The moments that a search finds. UserError where it finds none."""
    words = " ".join(filter(None, [request.query, request.when]))
    result = engine.find(
        words,
        "" if row is None else row.info.video_id,
        start=request.start or None,
        end=request.end,
        top=request.top,
        widen=_AROUND_S,
    )
    if not result.moments:
        raise UserError(f"Nothing is found for {words!r}; use other words")
    excerpts = Scope(engine.reader).of_moments(result.moments)
    return [_clamped(excerpt, request) for excerpt in excerpts], result.notes


def _clamped(excerpt: Excerpt, request: SummaryRequest) -> Excerpt:
    """The stretch without the context that lies outside of start= and end=."""
    low, high = request.start, math.inf if request.end is None else request.end
    chapters = [(max(low, start), min(high, end)) for start, end in excerpt.chapters]
    own = tuple(span for span in chapters if span[0] < span[1])
    return replace(excerpt, start=own[0][0], end=own[-1][1], chapters=own) if own else excerpt


def _overview(request: SummaryRequest, films: tuple[FilmSummary, ...]) -> int:
    if request.sentences is not None:
        return request.sentences
    return min(max(sum(len(film.chapters) for film in films), _FEWEST), _MOST)


def _title(request: SummaryRequest, films: tuple[FilmSummary, ...]) -> str:
    names = [Path(film.info.path).name or film.info.video_id for film in films]
    name = names[0] if len(films) == 1 else f"{len(films)} videos"
    what = ", ".join(filter(None, [request.query, request.when]))
    return f"{name}: {what}" if what else name


def _no_words(films: tuple[FilmSummary, ...]) -> str:
    without = [Path(film.info.path).name for film in films if not film.has_words]
    if not without:
        return ""
    return NO_WORDS.format(films=without[0] if len(without) == 1 else f"{len(without)} videos")
