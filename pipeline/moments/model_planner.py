"""`planner=model`: the backbone, reading text alone, weighs the channels and names the seconds.

Knows a text model and the rules; no bank. The rules still give the words of the search, and
everything else if the answer cannot be read, or if a server gives none.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from encoders.errors import UserError
from pipeline.endpoint.errors import EndpointError
from pipeline.query.plan import QueryPlan, plan
from pipeline.query.time_phrases import VideoTime
from pipeline.text_model import TextModel

PROMPT = (
    "Somebody searches a video for this: {question}\n"
    "How much do three kinds of evidence matter for it, each from 0 (not at all) to 3 (nothing "
    'else does)? "said": spoken words; "written": words on the screen; "seen": pictures. "from" '
    'and "to": the seconds of the video that it names, or null.\n'
    "Answer with one line like this and nothing else: "
    '{{"said": 1, "written": 0, "seen": 2, "from": null, "to": null}}'
)

_LEAST = 0.2  # weight of a channel that the model finds useless: it may be wrong
_WEIGHTS = {  # kind of evidence -> weights of its channels
    "said": {"subtitle": 1.0, "speech": 1.0},
    "written": {"ocr": 1.0},
    "seen": {
        "picture": 1.0,
        "kv": 0.3,
        "detection": 1.0,
        "object": 1.0,
        "label": 1.0,
        "caption": 0.7,
    },
}


@dataclass(frozen=True, slots=True)
class ModelAnswer:
    """The readable part of a model's answer."""

    counts: dict[str, int]  # "said", "written", "seen" -> 0..3; at least one
    span: tuple[float, float] | None  # seconds


def parse_answer(answer: str) -> ModelAnswer | None:
    """Read JSON, or the same words and numbers in another form. None if no weight is above 0."""
    counts = {}
    for kind in _WEIGHTS:
        match = re.search(
            rf"\b{kind}\b[\"'`*]*\s*[:=]?\s*[\"'`*]*([0-3])(?![\d.])", answer, re.IGNORECASE
        )
        if match is not None:
            counts[kind] = int(match[1])
    if not any(counts.values()):
        return None
    ends = [re.search(rf"[\"']{key}[\"']\s*:\s*(\d+(?:\.\d+)?)", answer) for key in ("from", "to")]
    start, end = (None if match is None else float(match[1]) for match in ends)
    if start is None or end is None or start >= end:
        return ModelAnswer(counts, None)
    return ModelAnswer(counts, (start, end))


def plan_from_answer(question: str, answer: str) -> QueryPlan:
    """The plan by the rules, with the weights of the answer and with its seconds if it names some.

    With a note and no change if the answer has no weights.
    """
    rules, parsed = plan(question), parse_answer(answer)
    if parsed is None:
        start = " ".join(answer.split())[:60]
        return replace(
            rules,
            note=f"planner=model: the model's answer ({start!r}) says no weights; "
            "the rules are used",
        )
    weights = dict(rules.weights)
    for kind, count in parsed.counts.items():
        weights |= {
            channel: max(float(count), _LEAST) * weight
            for channel, weight in _WEIGHTS[kind].items()
        }
    time = rules.time if parsed.span is None else VideoTime(*parsed.span)
    return replace(rules, weights=weights, time=time)


class ModelPlanner:
    """A planner that asks a language model."""

    def __init__(self, *, model: Callable[[], TextModel], max_new_tokens: int = 64) -> None:
        """model: loads it, or knows its address; called with the first question."""
        if max_new_tokens < 1:
            raise UserError(
                f"planner.max_new_tokens={max_new_tokens} gives no room for an answer; "
                "use 1 or more"
            )
        self._model, self._max_new_tokens = model, max_new_tokens

    def __call__(self, question: str) -> QueryPlan:
        try:
            return plan_from_answer(question, self.answer(question))
        except EndpointError as error:  # a search goes on without its server
            note = f"planner=model: {str(error).rstrip('.')}; the rules are used"
            return replace(plan(question), note=note)

    def answer(self, question: str) -> str:
        """The model's answer to the prompt, without any frame."""
        return self._model().write(PROMPT.format(question=question), self._max_new_tokens)
