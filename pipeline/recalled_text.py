"""Words of a video for a question: which lines, how many of them a model reads, how they look in a prompt.

Knows the bank's search and a tokenizer; nothing of frames. Lines stand before the question, in time order, each with its time
and what it is: "[02:05] on screen: ...". A video without words gives nothing, and then the prompt is the question alone.
"""

import re
from collections.abc import Sequence
from typing import Any

from encoders.text.lines import TextLine
from memory.bank import MemoryBank
from memory.schema import Question
from memory.text_search import Found, Wanted
from pipeline import planner
from pipeline.schema import CitedLine

TOKENS = 512  # that a model reads by default, if it understands any text
MOST = 8  # lines
LEAST = 0.34  # coverage: a line that has one of three words that are asked for says nothing
LABELS = {"subtitle": "said", "speech": "said", "ocr": "on screen", "caption": "described"}


def find(bank: MemoryBank, question: Question, duration: float) -> tuple[Found, ...]:
    """The lines that belong to a question, best first; none after its moment."""
    plan = planner.plan(question.text)
    start, end = plan.when(duration)
    found = bank.find_text(
        plan.query, Wanted(question.video_id, start=max(start, question.since), end=end, asked_at=question.asked_at), 4 * MOST
    )
    ranked = sorted(found, key=lambda one: -one.score * plan.weights.get(one.line.kind, 1.0))
    telling = {one.line.text.casefold(): one for one in reversed(ranked) if one.coverage >= LEAST}  # of repeats the best one
    return tuple(one for one in ranked if telling.get(one.line.text.casefold()) is one)[:MOST]


def fitting(found: Sequence[Found], backbone: Any, read_tokens: int) -> tuple[TextLine, ...]:
    """The best lines that fit, in time order."""
    kept, left = [], read_tokens
    for one in found if read_tokens else ():
        tokens = len(backbone.ids(told(one.line)))
        if tokens <= left:
            kept.append(one.line)
            left -= tokens
    return tuple(sorted(kept, key=lambda line: (line.start, line.end, line.kind)))


def told(line: TextLine) -> str:
    """A line in a prompt. What could be taken for a token with a meaning of its own is taken out."""
    whole = int(line.start + 1e-6)
    text = re.sub(r"[<>|]+", " ", line.text)
    return f"[{whole // 60:02d}:{whole % 60:02d}] {LABELS.get(line.kind, line.kind)}: {text}\n"


def prompt(lines: Sequence[TextLine], question: str) -> str:
    """What stands behind the frames."""
    return "".join(map(told, lines)) + question


def spans(found: Sequence[Found]) -> list[tuple[float, float]]:
    """Where the words are, best first."""
    return [(one.start, one.end) for one in found]


def cited(found: Sequence[Found], read: Sequence[TextLine]) -> tuple[CitedLine, ...]:
    """As an answer has them."""
    return tuple(
        CitedLine(one.line.start, one.line.end, one.line.kind, one.line.text, round(one.coverage, 3), one.line in read)
        for one in found
    )
