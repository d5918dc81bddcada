"""`reelbank ask`: encodes videos that the bank lacks, answers a question about them, and prints."""

import json
import sys
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TextIO

from encoders.errors import UserError
from pipeline.commands.output.encoding_messages import EncodingMessages
from pipeline.commands.output.moment_exports import check_files, report_files
from pipeline.commands.output.terminal import format_answer
from pipeline.config.tasks.pipeline_settings import OutputFormat
from pipeline.config.tasks.question_settings import AskSettings
from pipeline.engine import ALL, Engine
from pipeline.export.moment_list import ListedMoment
from pipeline.schema import Answer, check_question

_ADD_ROUTE = (
    "counts, orders and summaries need the whole video, and this answer rests on the frames that "
    "fit best; --answer route reads every segment for them"
)


def run(settings: AskSettings, engine: Engine | None = None) -> int:
    """reelbank ask. engine: of these settings, from a caller that keeps it."""
    check_question(settings.question)
    if settings.asked_at is not None and not settings.asked_at >= 0:
        raise UserError(
            f"asked_at={settings.asked_at:g} is before the video begins; "
            "give seconds of video time, 0 or more."
        )
    from encoders.sources.container import check_file

    videos = [settings.video, *settings.also]
    if not settings.also_banks:  # several may know a file by its former path
        for video in videos if settings.also or settings.video != ALL else ():
            if not _is_stored(settings.bank, video):  # such as a stream, which has no file
                check_file(Path(video))
    check_files(settings)
    messages = EncodingMessages(settings)
    streams = settings.format == OutputFormat.text and sys.stdout.isatty()
    with Engine.of(settings) if engine is None else nullcontext(engine) as asking:
        answer = asking.ask(
            settings.question,
            videos,
            settings.asked_at,
            _print_token if streams else _ignore,
            messages,
            start=settings.start,
            end=settings.end,
            began=settings.began,
            on_encode=messages.show_segments,
        )
        moments = listed_moments(answer, asking)
    print_answer(answer, settings.format, streams)
    report_files(moments, settings.question, settings)
    if videos != [ALL]:
        messages.suggest("find", settings.video, "a person")
    if _needs_all_of_it(settings):
        messages.hint(_ADD_ROUTE)
    return 0


def _is_stored(bank: str, video: str) -> bool:
    """Whether a text is the id of a video of the bank, and no file: before anything is opened."""
    is_name = video == Path(video).name and not Path(video).exists()
    return is_name and (Path(bank) / "segments" / video).is_dir()


def _needs_all_of_it(settings: AskSettings) -> bool:
    """Whether single moments were read for a question that `route` reads the whole video for."""
    if not str(settings.answer["_target_"]).endswith(".Retrieve"):
        return False
    from pipeline.answer.strategies.route import whole_video_rule
    from pipeline.frame_embedder import is_of_needle_world

    return whole_video_rule(settings.question, is_of_needle_world(settings.backbone)) is not None


def listed_moments(answer: Answer, engine: Engine) -> list[ListedMoment]:
    """The moments that an answer cites, film by film."""
    paths = {cited.video_id: (cited.path, cited.spans) for cited in answer.videos}
    if not paths and answer.spans:
        paths[answer.video_id] = engine.video(answer.video_id).info.path, answer.spans
    return [
        ListedMoment(video_id, path, *span) for video_id, (path, spans) in paths.items()
        for span in spans
    ]  # fmt: skip


def print_answer(
    answer: Answer, format: OutputFormat, is_printed: bool, out: TextIO | None = None
) -> None:
    """The answer with its citations. is_printed: its text, in pieces. out: None is stdout."""
    if format == OutputFormat.json:
        print(json.dumps(asdict(answer)), file=out)
    else:
        print("" if is_printed else answer.text, file=out)
        print(format_answer(answer), file=out, flush=True)


def _print_token(text: str) -> None:
    print(text, end="", flush=True)


def _ignore(text: str) -> None:
    pass
