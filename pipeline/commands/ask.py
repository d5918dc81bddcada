"""What the tasks of the command line do and print. Knows no error format: mistakes are UserErrors."""

import json
import sys
from dataclasses import asdict, replace

from encoders.errors import UserError
from pipeline.commands.ingest import _encode, _opened
from pipeline.commands.terminal import told
from pipeline.config.settings import AskSettings
from pipeline.schema import check_question


def run(config: AskSettings) -> int:
    """reelbank ask."""
    check_question(config.question)
    asked_at = float("inf") if config.asked_at is None else config.asked_at
    if not asked_at >= 0:
        raise UserError(
            f"asked_at={asked_at:g} is before the video begins; give seconds of video time, 0 or more."
        )
    with _opened(config) as (qa, source):
        from memory.schema import Question

        encoded = _encode(config, qa, source)
        live = config.format == "text" and sys.stdout.isatty()
        emit = (lambda text: print(text, end="", flush=True)) if live else (lambda text: None)
        answer = qa.ask(Question(config.question, source.info.video_id, asked_at), emit)
        # what is said of the file is in both
        more = encoded.warning.removeprefix(answer.warning).strip()
        answer = replace(answer, warning=" ".join(filter(None, [answer.warning, more])))
    if config.format == "json":
        print(json.dumps(asdict(answer)))
    else:
        print("" if live else answer.text)
        print(told(answer))
    return 0
