"""Parts of a film for a visitor of the page: a clip as a file, chapters and a summary.

Knows films and banks; no HTTP.
"""

import logging
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from encoders.errors import UserError
from pipeline.export.clip import cut_clip
from pipeline.export.moment_clips import clip_name
from pipeline.export.moment_list import ListedMoment
from pipeline.server.errors import ApiError
from pipeline.server.files import StoredFile
from pipeline.server.page.library import LibraryVideo
from pipeline.summary.schema import Chapter, CitedSentence
from pipeline.summary.scope import Scope
from pipeline.summary.summarizer import Summarizer

log = logging.getLogger(__name__)

MOST_S = 600.0  # of a clip
_AT_ONCE = 2  # clips and summaries that are made
_FEWEST, _MOST = 3, 8  # sentences of a summary
_PATIENCE_S = 10.0  # seconds that a visitor waits for a turn


class Excerpts:
    """Safe in threads."""

    def __init__(self) -> None:
        self._turns = threading.BoundedSemaphore(_AT_ONCE)

    def clip(self, file: StoredFile, title: str, start: float, end: float, folder: Path) -> Path:
        """Write the seconds from `start` to `end` of a film to a folder; the path says film and
        time. They begin and end there where their codec can be encoded, else at keyframes.

        ApiError 422 on seconds that are none of the film, 409 where they cannot be cut.
        """
        end = min(end, file.duration or end)
        if not 0 <= start < end:
            raise ApiError(422, "Give start and end in seconds of the film, start below end.")
        if end - start > MOST_S:
            raise ApiError(422, f"A clip has at most {MOST_S:g} s.")
        name = clip_name(
            ListedMoment("", str(Path(title).with_suffix(file.path.suffix)), start, end)
        )
        path = folder / name
        with self._turn():
            try:
                try:
                    return cut_clip(file.path, start, end, path, exact=True).path
                except UserError:  # of a codec that is not encoded here
                    return cut_clip(file.path, start, end, path).path
            except UserError as error:  # it names a path of the server
                log.warning("reelbank: warning: no clip of %s: %s", title, error)
                raise ApiError(409, f"No clip of these seconds can be cut from {title}.") from None

    def summary(self, video: LibraryVideo) -> dict[str, Any]:
        """Chapters, and sentences that are quoted with their seconds, as JSON data. UserError where
        the bank has nothing of the video."""
        bank = video.qa.bank
        with self._turn():
            excerpts, notes = Scope(bank).of_films([bank.catalog.require_video(video.id)])
            summarizer = Summarizer(bank)
            films = tuple(summarizer.summarize(each) for each in excerpts)
            count = min(max(sum(len(film.chapters) for film in films), _FEWEST), _MOST)
            sentences = summarizer.overview(films, count)
        if not all(film.has_words for film in films):
            notes = [*notes, "No words were found, so the chapters are scenes."]
        return {
            "object": "summary",
            "id": video.id,
            "chapters": [_chapter(each) for film in films for each in film.chapters],
            "sentences": [_sentence(each) for each in sentences],
            "notes": notes,
        }

    @contextmanager
    def _turn(self) -> Iterator[None]:
        if not self._turns.acquire(timeout=_PATIENCE_S):
            raise ApiError(429, "Other clips and summaries are being made.", retry_after=10)
        try:
            yield
        finally:
            self._turns.release()


def clip_folder() -> "tempfile.TemporaryDirectory[str]":
    """A folder for one clip, which is gone once it is sent."""
    return tempfile.TemporaryDirectory(prefix="reelbank-clip-", ignore_cleanup_errors=True)


def _chapter(chapter: Chapter) -> dict[str, Any]:
    return {
        "start": round(chapter.start, 3),
        "end": round(chapter.end, 3),
        "title": chapter.title,
        "pictures": [round(at, 3) for at in chapter.pictures],
        "sentences": [_sentence(each) for each in chapter.sentences],
    }


def _sentence(one: CitedSentence) -> dict[str, Any]:
    return {
        "text": one.text,
        "start": round(one.start, 3),
        "end": round(one.end, 3),
        "channel": one.channel,
        "is_quoted": one.is_quoted,
    }
