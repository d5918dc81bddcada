"""`reelbank ingest`: encodes a video into a bank, or adds text to all videos of a bank."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from encoders.errors import UserError
from pipeline.commands.output.encoding_messages import EncodingMessages, question_to_try
from pipeline.config.tasks.pipeline_settings import AUTO_TEXT, IngestSettings, OutputFormat
from pipeline.config.units import format_size, format_time
from pipeline.engine import Engine
from pipeline.schema import IngestReport

if TYPE_CHECKING:
    from encoders.schema import VideoInfo
    from encoders.text.lines import TextExtractor
    from pipeline.ingest.text import TextExtraction


def run(settings: IngestSettings, engine: Engine | None = None) -> int:
    """reelbank ingest. engine: of these settings, from a caller that keeps it."""
    if settings.is_missing("video"):
        from pipeline.sentence_encoder import is_automatic

        # text=auto is for a film that is encoded
        settings = settings.changed(text={}) if AUTO_TEXT in settings.text else settings
        if settings.text or (settings.dense and not is_automatic(settings.dense)):
            return _add_text(settings)
    messages = EncodingMessages(settings)
    with Engine.of(settings) if engine is None else nullcontext(engine) as encoding:
        _add(settings, encoding, messages)
    messages.suggest("ask", settings.video, question_to_try(settings))
    return 0


def run_all(settings: IngestSettings, films: Sequence[str]) -> int:
    """reelbank add FILM FILM...; the settings are the same for all, and so are the parts.

    A film that cannot be added is one line on stderr, and the others go on; exit code 2 then.
    """
    messages, added = EncodingMessages(settings), list[str]()
    with Engine.of(settings) as engine:
        for film in films:
            try:
                _add(settings.changed(video=film), engine, messages)
                added.append(film)
            except UserError as error:
                print(f"reelbank: {str(error).rstrip('. ')}.", file=sys.stderr, flush=True)
    if added:
        messages.suggest("ask", added[-1], question_to_try(settings))
    return 0 if len(added) == len(films) else 2


def _add(settings: IngestSettings, engine: Engine, messages: EncodingMessages) -> None:
    """Encode one film, and print its report."""
    report = engine.add(
        settings.video,
        messages,
        start=settings.start,
        end=settings.end,
        began=settings.began,
    )
    if settings.format == OutputFormat.json:
        print(json.dumps(asdict(report)))
    else:
        print_report(settings, report)


def print_report(settings: IngestSettings, report: IngestReport) -> None:
    new = "nothing new"
    if report.new_segments:
        new = f"{report.new_segments} new segments, {report.nbytes / 1e6:.1f} MB"
    print(
        f"{settings.video}: {format_time(report.video_seconds)} in {report.segments} segments, "
        f"{report.frames} frames ({new}, {report.seconds['total']:.1f} s) in bank {settings.bank}"
    )
    if report.thumbnail_bytes and report.new_seconds:
        hour = report.thumbnail_bytes / report.new_seconds * 3600
        print(
            f"thumbnails: {format_size(report.thumbnail_bytes)}, at this rate "
            f"{format_size(hour)} an hour"
        )
    if report.text_lines:
        print(f"words: {_line_counts(report.text_lines)}")
    if report.pictures:
        print(f"pictures: {', '.join(_picture_counts(report))}")
    if report.warning:
        print(f"warning: {report.warning}")


def _picture_counts(report: IngestReport) -> Iterator[str]:
    """Such as "600 frames by conse in 9.1 s"; without seconds where nothing was embedded."""
    for name, count in report.pictures.items():
        seconds = report.seconds.get(name)
        yield f"{count} frames by {name}" + ("" if seconds is None else f" in {seconds:.1f} s")


def _line_counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} lines by {name}" for name, count in counts.items())


def _add_text(settings: IngestSettings) -> int:
    """Extract the text of all videos of a bank; their frames stay as they are."""
    from memory.bank import MemoryBank
    from memory.retrieval.uniform import UniformRetriever
    from pipeline.build import build_extractors
    from pipeline.ingest.text import TextExtraction
    from pipeline.sentence_encoder import build_sentence_encoder, fitting

    if "captions" in settings.text:
        raise UserError(
            "text=captions asks the model about the encoded video; give video=FILE as well"
        )
    extractors = build_extractors(settings.text)
    sentence_encoder = build_sentence_encoder(settings.dense)
    with MemoryBank.open(
        settings.bank, None, UniformRetriever(), recent_frames=0, create=False
    ) as bank:
        bank.begin_writing()
        sentence_encoder = fitting(sentence_encoder, bank.text)
        text = TextExtraction(bank, extractors, (), sentence_encoder)
        videos = bank.catalog.videos()
        _refuse_one_file_for_all(extractors, settings, [row.info.video_id for row in videos])
        table = [_text_row(text, video.info) for video in videos]
    if settings.format == OutputFormat.json:
        print(json.dumps({"bank": settings.bank, "videos": table}))
        return 0
    for row in table:
        print(f"{row['video_id']}  {_line_counts(row['text_lines']) or 'no words'}  {row['path']}")
        if row["warning"]:
            print(f"warning: {row['warning']}")
    if not table:
        print("no video yet; `reelbank ingest video=FILE` adds one")
    return 0


def _refuse_one_file_for_all(
    extractors: "Sequence[TextExtractor]", settings: IngestSettings, video_ids: Sequence[str]
) -> None:
    """UserError for one subtitle file and several videos: its lines belong to one of them."""
    from encoders.schema import VideoPart
    from encoders.text.subtitles import Subtitles

    paths = [each.path for each in extractors if isinstance(each, Subtitles) and each.path]
    files = {VideoPart.parse(video_id).id for video_id in video_ids}
    if paths and len(files) > 1:
        raise UserError(
            f"text.subtitles.path={paths[0]} belongs to one video, and bank {settings.bank} has "
            f"{len(files)}; give video=FILE as well"
        )


def _text_row(text: "TextExtraction", info: "VideoInfo") -> dict[str, Any]:
    """Extract the text of one video; its row of format=json."""
    error = ""
    try:
        with text.extracting(info):
            pass
    except UserError as failure:  # such as a missing file; the other videos go on
        error = str(failure)
    counts = text.line_counts(info.video_id)
    if not text.extractors:
        counts = {run.extractor: run.lines for run in text.bank.text.runs(info.video_id)}
    return {
        "video_id": info.video_id,
        "path": info.path,
        "text_lines": counts,
        "warning": error or text.notes(info.video_id),
    }
