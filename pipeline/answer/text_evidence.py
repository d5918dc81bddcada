"""Words of a video for a question: which lines, how many of them a model reads, how they look in a prompt.

Knows the bank's search and a tokenizer; nothing of frames. Lines stand before the question, in time order, each with its time
and what it is: "[02:05] on screen: ...". A video without words gives nothing, and then the prompt is the question alone.
"""

import re
from collections import defaultdict
from collections.abc import Sequence

from encoders.models.backbone import Backbone
from encoders.text.lines import SentenceEncoder, TextLine
from memory.bank import MemoryBank
from memory.schema import Question
from memory.text.bm25 import Found, Wanted
from pipeline.config.units import format_time
from pipeline.query import plan as planner
from pipeline.schema import CitedLine

TOKENS = 512  # that a model reads by default, if it understands any text
MOST = 8  # lines
LEAST = 0.34  # coverage: a line that has one of three words that are asked for says nothing
# cosine: 95 of 100 lines that mean what is asked in other words lie above it, one of 50 others does
NEAR = 0.45
LABELS = {"subtitle": "said", "speech": "said", "ocr": "on screen", "caption": "described"}


def find(
    bank: MemoryBank, question: Question, duration: float, sentences: SentenceEncoder | None = None
) -> tuple[Found, ...]:
    """The lines that belong to a question, best first; none after its moment. sentences: a sentence encoder, whose vectors rank
    lines beside their words; the two are fused by rank. Quoted words have to be there: then only words count."""
    plan = planner.plan(question.text)
    start, end = plan.when(duration)
    wanted = Wanted(
        question.video_id, start=max(start, question.since), end=end, asked_at=question.asked_at
    )
    said = bank.text.search(plan.query, wanted, 4 * MOST)
    ranked = sorted(said, key=lambda one: -one.score * plan.weights.get(one.line.kind, 1.0))
    telling = [one for one in ranked if one.coverage >= LEAST]
    if sentences is not None and not plan.query.phrases:
        meant = bank.text.nearest(sentences.embed([plan.text])[0].numpy(), wanted, 4 * MOST)
        telling = _fused(telling, [one for one in meant if one.coverage >= NEAR])
    best = {one.line.text.casefold(): one for one in reversed(telling)}  # of repeats
    return tuple(one for one in telling if best[one.line.text.casefold()] is one)[:MOST]


def _fused(*rankings: Sequence[Found], k0: float = 60.0) -> list[Found]:
    """Each line once, by the sum of its reciprocal ranks; equal ones in time order."""
    scores: defaultdict[tuple[float, str, str], float] = defaultdict(float)
    first: dict[tuple[float, str, str], Found] = {}
    for ranking in rankings:
        for rank, one in enumerate(ranking, start=1):
            name = (one.line.start, one.line.kind, one.line.text)
            scores[name] += 1 / (k0 + rank)
            first.setdefault(name, one)
    return [first[name] for name in sorted(scores, key=lambda name: (-scores[name], name))]


def fitting(found: Sequence[Found], backbone: Backbone, read_tokens: int) -> tuple[TextLine, ...]:
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
    when = format_time(line.start + 1e-6, hours="never")
    text = re.sub(r"[<>|]+", " ", line.text)
    return f"[{when}] {LABELS.get(line.kind, line.kind)}: {text}\n"


def prompt(lines: Sequence[TextLine], question: str) -> str:
    """What stands behind the frames."""
    return "".join(map(told, lines)) + question


def spans(found: Sequence[Found]) -> list[tuple[float, float]]:
    """Where the words are, best first."""
    return [(one.start, one.end) for one in found]


def cited(found: Sequence[Found], read: Sequence[TextLine]) -> tuple[CitedLine, ...]:
    """As an answer has them."""
    return tuple(
        CitedLine(
            one.line.start,
            one.line.end,
            one.line.kind,
            one.line.text,
            round(one.coverage, 3),
            one.line in read,
        )
        for one in found
    )
