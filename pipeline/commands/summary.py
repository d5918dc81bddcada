"""`reelbank summary`: chapters of films, and sentences that name what they rest on.

Checks the settings and reports; pipeline/summary/ summarizes.
"""

import json
import sys
from contextlib import nullcontext
from pathlib import Path

from pipeline.commands.output.encoding_messages import EncodingMessages
from pipeline.commands.output.summary_markdown import summary_markdown
from pipeline.commands.output.summary_report import REPORTS, SummaryReport
from pipeline.config.tasks.pipeline_settings import OutputFormat
from pipeline.config.tasks.question_settings import SummarySettings
from pipeline.engine import Engine
from pipeline.export import chapter_list
from pipeline.export.text_file import check_target
from pipeline.summary.request import SummaryRequest, summarize


def run(settings: SummarySettings, engine: Engine | None = None) -> int:
    """reelbank summary. engine: of these settings, from a caller that keeps it."""
    if settings.out:
        check_target(Path(settings.out), REPORTS, "a report")
    if settings.chapters:
        check_target(Path(settings.chapters), chapter_list.FORMATS, "a file of chapters")
    messages = EncodingMessages(settings)
    with Engine.of(settings) if engine is None else nullcontext(engine) as reading:
        summary = summarize(reading, request_of(settings), messages)
        report = SummaryReport(summary, lambda: reading.reader.catalog)
        if settings.chapters:  # the first, as it may refuse several films
            report.write_chapters(Path(settings.chapters))
        if settings.out:
            report.write(Path(settings.out))
    if settings.format == OutputFormat.json:
        print(json.dumps(report.to_json()))
    elif settings.out:
        chapters = _counted(len(summary.chapters), "chapter")
        sentences = _counted(len(summary.sentences), "sentence")
        print(f"{chapters}, {sentences}: {settings.out}")
    else:
        print(summary_markdown(summary), end="")
    for note in (*summary.notes, *report.notes):
        print(f"reelbank: warning: {note}", file=sys.stderr)
    if settings.video:
        messages.suggest("find", settings.video, "a person")
    return 0


def request_of(settings: SummarySettings) -> SummaryRequest:
    """What to summarize."""
    return SummaryRequest(
        settings.video,
        settings.when,
        settings.query,
        settings.start,
        settings.end,
        settings.top,
        settings.shortest_chapter,
        settings.sentences,
        settings.chapter_sentences,
        settings.method,
    )


def _counted(count: int, noun: str) -> str:
    """ "1 chapter", "2 chapters"."""
    return f"{count} {noun}{'' if count == 1 else 's'}"
