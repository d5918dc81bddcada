"""A summary as files and as JSON: the report, and the chapters of a film."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from encoders.errors import UserError
from memory.bank_catalog import BankCatalog
from memory.retrieval.fusion import Moment
from pipeline.commands.output.summary_html import summary_page
from pipeline.commands.output.summary_markdown import summary_markdown
from pipeline.commands.output.thumbnails import Thumbnails
from pipeline.export.chapter_list import ChapterList
from pipeline.export.text_file import check_target, write_text
from pipeline.summary.schema import Summary

REPORTS = (".html", ".md")


@dataclass
class SummaryReport:
    """Writes one summary. `notes` says what the user must know of the files so far."""

    summary: Summary
    # of the bank, whose pictures stand in for those of a film that is gone; UserError once closed
    catalog: Callable[[], BankCatalog]
    notes: list[str] = field(default_factory=list)

    def write(self, path: Path) -> None:
        """Write the report, with a picture of each chapter: .html or .md. UserError on another
        suffix, and where the file cannot be written."""
        from pipeline.picture_source import PictureSource  # it loads a decoder of films

        check_target(path, REPORTS, "a report")
        moments = [
            Moment(chapter.video_id, at, at, 0.0, (), (), at)
            for chapter in self.summary.chapters
            for at in chapter.pictures
        ]
        thumbnails = Thumbnails(moments, PictureSource(self.catalog()))
        is_markdown = path.suffix.lower() == ".md"
        text = (summary_markdown if is_markdown else summary_page)(self.summary, thumbnails)
        write_text(path, text)
        self.notes += thumbnails.notes

    def write_chapters(self, path: Path) -> None:
        """Write the chapters: .vtt, .ffmeta or .txt. UserError as `write`, and where there are
        chapters of several films."""
        chapters = self.chapters()
        chapters.write(path)
        if path.suffix.lower() == ".txt" and chapters.youtube_note:
            self.notes.append(chapters.youtube_note)

    def chapters(self) -> ChapterList:
        """The chapters of the one film. UserError where there are several."""
        films = self.summary.films
        if len(films) != 1:
            raise UserError(
                f"A file of chapters belongs to one film, and the summary has {len(films)}; name "
                "one of them"
            )
        chapters = films[0].chapters
        spans = [(chapter.start, chapter.end) for chapter in chapters]
        return ChapterList.of(spans, [chapter.title for chapter in chapters])

    def to_json(self) -> dict[str, Any]:
        """The records, with the path of a film in place of all that is known of it."""
        films = [
            {
                "video_id": film.info.video_id,
                "path": film.info.path,
                "start": round(film.start, 3),
                "end": round(film.end, 3),
                "has_words": film.has_words,
                "chapters": [asdict(chapter) for chapter in film.chapters],
            }
            for film in self.summary.films
        ]
        return {
            "title": self.summary.title,
            "sentences": [asdict(sentence) for sentence in self.summary.sentences],
            "videos": films,
            "model": self.summary.model,
            "calls": self.summary.calls,
            "notes": list(self.summary.notes),
        }
