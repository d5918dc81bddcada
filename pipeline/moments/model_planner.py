"""`planner=model`: the backbone, reading text alone, says how much each channel counts and which seconds are meant.

Knows a reader and the rules; no bank. What is searched for and what has to be there word by word stays with the rules; so does
everything else when the answer cannot be read.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from encoders.errors import UserError
from memory.retrieval.common import hits
from memory.schema import Evidence, Question
from pipeline.answer.reader import TokenReader
from pipeline.query import plan
from pipeline.query.plan import QueryPlan
from pipeline.query.time_phrases import VideoTime
from pipeline.runtime.stage_timer import StageTimer

PROMPT = """Somebody searches a video for this: {question}
How much do three kinds of evidence matter for it, each from 0 (not at all) to 3 (nothing else does)? "said": spoken words; \
"written": words on the screen; "seen": pictures. "from" and "to": the seconds of the video that it names, or null.
Answer with one line like this and nothing else: {{"said": 1, "written": 0, "seen": 2, "from": null, "to": null}}"""

LEAST = 0.2  # of a channel that the model sees no use in: it may be wrong
_SHARES = {  # of channels in the three kinds
    "said": {"subtitle": 1.0, "speech": 1.0},
    "written": {"ocr": 1.0},
    "seen": {"picture": 1.0, "kv": 0.3, "caption": 0.7},
}


@dataclass(frozen=True)
class Said:
    """What a model said, as far as it could be read."""

    counts: dict[str, int]  # "said", "written", "seen" -> 0..3; at least one
    span: tuple[float, float] | None  # seconds


def parsed(answer: str) -> Said | None:
    """JSON, or the same words and numbers otherwise; None where there is none, or where nothing would count."""
    counts = {}
    for kind in _SHARES:
        found = re.search(
            rf"\b{kind}\b[\"'`*]*\s*[:=]?\s*[\"'`*]*([0-3])(?![\d.])", answer, re.IGNORECASE
        )
        if found is not None:
            counts[kind] = int(found[1])
    if not any(counts.values()):
        return None
    ends = [re.search(rf"[\"']{key}[\"']\s*:\s*(\d+(?:\.\d+)?)", answer) for key in ("from", "to")]
    first, last = (None if end is None else float(end[1]) for end in ends)
    return Said(counts, None if first is None or last is None or first >= last else (first, last))


def planned(question: str, answer: str) -> QueryPlan:
    """The rules' plan with the weights of a model's answer and, where it names one, its stretch of time; the rules' plan with a
    note where the answer says no weights."""
    rules, said = plan.plan(question), parsed(answer)
    if said is None:
        told = " ".join(answer.split())[:60]
        return replace(
            rules,
            note=f"planner=model: the model's answer ({told!r}) says no weights; the rules are used",
        )
    weights = dict(rules.weights)
    for kind, count in said.counts.items():
        weights |= {
            channel: max(float(count), LEAST) * share for channel, share in _SHARES[kind].items()
        }
    if said.span is None:
        return replace(rules, weights=weights)
    return replace(rules, weights=weights, time=VideoTime(*said.span))


class ModelPlanner:
    """A planner that asks a language model.

    backbone: gives the model when it is first needed.
    """

    def __init__(self, *, backbone: Callable[[], Any], max_new_tokens: int = 64) -> None:
        if max_new_tokens < 1:
            raise UserError(
                f"planner.max_new_tokens={max_new_tokens} gives no room for an answer; use 1 or more"
            )
        self._backbone, self._room = backbone, max_new_tokens

    def __call__(self, question: str) -> QueryPlan:
        return planned(question, self.answer(question))

    def answer(self, question: str) -> str:
        """What the model says, without any frame."""
        reader = TokenReader(self._backbone(), max_new_tokens=self._room)
        asked = Question(PROMPT.format(question=question), "")
        return reader.read(
            Evidence(asked, (), hits([], []), recent=0, interval=1.0), StageTimer()
        ).text
