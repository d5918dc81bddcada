"""`reelbank ask`: encodes videos that the bank lacks, answers a question about them, and prints."""

import json
import sys
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TextIO

from encoders.errors import UserError
from pipeline.commands.output.encoding_messages import EncodingMessages
from pipeline.commands.output.terminal import format_answer
from pipeline.config.settings import AskSettings, OutputFormat
from pipeline.engine import ALL, Engine
from pipeline.schema import Answer, check_question


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
    for video in videos if settings.also or settings.video != ALL else ():
        check_file(Path(video))
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
        )
    print_answer(answer, settings.format, streams)
    if videos != [ALL]:
        messages.suggest("find", settings.video, "a person")
    return 0


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
