"""`reelbank ask`: encodes a video if the bank lacks it, answers a question about it, and prints."""

import json
import sys
from dataclasses import asdict, replace

from encoders.errors import UserError
from pipeline.commands.encode import encode_or_read, open_parts
from pipeline.commands.output.terminal import format_answer
from pipeline.config.settings import AskSettings, OutputFormat
from pipeline.schema import check_question


def run(settings: AskSettings) -> int:
    """reelbank ask."""
    check_question(settings.question)
    asked_at = float("inf") if settings.asked_at is None else settings.asked_at
    if not asked_at >= 0:
        raise UserError(
            f"asked_at={asked_at:g} is before the video begins; "
            "give seconds of video time, 0 or more."
        )
    with open_parts(settings) as (qa, source):
        from memory.schema import Question

        note, asked_at = encode_or_read(settings, qa, source, asked_at)
        streams = settings.format == OutputFormat.text and sys.stdout.isatty()
        question = Question(settings.question, source.info.video_id, asked_at)
        answer = qa.ask(question, _print_token if streams else _ignore)
        # both may have the remark on the file
        note = note.removeprefix(answer.warning).strip()
        answer = replace(answer, warning=" ".join(filter(None, [answer.warning, note])))
    if settings.format == OutputFormat.json:
        print(json.dumps(asdict(answer)))
    else:
        print("" if streams else answer.text)
        print(format_answer(answer))
    return 0


def _print_token(text: str) -> None:
    print(text, end="", flush=True)


def _ignore(text: str) -> None:
    pass
