"""A request in words -> a question that the model knows, and the probability that it is met.

A request becomes one of the templates for the embedded model, a yes-no question for others
(`Check`). Knows no stream.
"""

import math
import re
from collections.abc import Iterable, Sequence

from encoders.errors import UserError
from encoders.schema import Segment
from memory.retrieval.common import hits
from memory.schema import Evidence, Question, Run
from pipeline.alerts.schema import Check
from pipeline.answer.schema import is_local
from pipeline.live.session import check_text
from pipeline.needle_world.cards import COLORS, ICONS, NAMES, SHAPES
from pipeline.needle_world.questions import CODE, COLOR, ICON, NAME, NOT_SHOWN, SHAPE
from pipeline.qa import VideoQA
from pipeline.runtime.stage_timer import StageTimer
from pipeline.schema import Reading, Trace, is_shown


def probability(qa: VideoQA, question: Question, check: Check) -> tuple[float, Trace | None]:
    """The probability that what a check asks about is there, in what a question sees, and how it
    came about.

    The strategy of the run answers, with a reader that measures. One that reduces by rule never
    calls it: then the answer in words is all that there is.
    """
    probabilities: list[float] = []

    def read(evidence: Evidence, timer: StageTimer) -> Reading:
        reading, one = _measure(qa, evidence, check, timer)
        probabilities.append(one)
        return reading

    answer = qa.answerer.ask(question, read=read)
    if not probabilities:
        probabilities.append(float(_says_yes(answer.text, check)))
    return probabilities[-1], answer.trace


def frame_probability(qa: VideoQA, segment: Segment, place: int, check: Check) -> float:
    """The model's probability that one frame of a segment shows what is asked.

    Nothing is recalled and no strategy runs: the model reads the frame as it was encoded. place: of
    the frame in the segment. UserError where the model is not in this process.
    """
    if not is_local(qa.answerer.reader):
        raise UserError(
            "trigger=probability needs a model in this process, which backbone=endpoint is not; "
            "choose another trigger="
        )
    kv = None if segment.kv is None else segment.kv.frames(place, place + 1)
    tokens = segment.tokens.frames(place, place + 1)
    run = Run(segment.video_id, segment.number, place, tokens, kv)
    question = Question(check.question, segment.video_id)
    evidence = Evidence(question, (run,), hits([], []), recent=0, interval=qa.ingester.interval)
    return _measure(qa, evidence, check, StageTimer())[1]


def _measure(
    qa: VideoQA, evidence: Evidence, check: Check, timer: StageTimer
) -> tuple[Reading, float]:
    """The likeliest answer, and the probability of those that mean yes."""
    reader = qa.answerer.reader
    if not is_local(reader):  # an answer in words is all that there is
        reading = reader.read(evidence, timer)
        return reading, float(_says_yes(reading.text, check))
    ids = [reader.backbone.prompt.ids(f" {text}") for text in (*check.yes, *check.no)]
    logs, weights = reader.log_likelihoods(evidence, check.question, ids, timer)
    chances = [math.exp(each) for each in logs]
    no = sum(chances[len(check.yes) :])
    yes = sum(chances[: len(check.yes)]) if check.yes else 1.0 - no
    if NOT_SHOWN not in check.no:
        yes /= yes + no
    text = NOT_SHOWN if yes <= 0.5 else check.yes[0] if check.yes else "yes"
    return Reading(text, weights if yes > 0.5 else {}), yes


def check_for(request: str, questions: str | None) -> Check:
    """The question behind a request. questions: of the backbone, the only ones that it knows.

    UserError if a backbone of the needle world knows no such question. It understands "when a red
    star appears", "when there is a code", "the name Alice", "a key".
    """
    check_text(request)
    if questions is None:
        question = (
            f'Request: "{request.strip()}". Does this part of the video show it? Answer yes or no.'
        )
        return Check(question, ("yes", "Yes"), ("no", "No"))
    words = re.findall(r"\w+", request)
    lower = [word.lower() for word in words]
    shape, color, icon = (_first(lower, options) for options in (SHAPES, COLORS, ICONS))
    name = _first(lower, [each.lower() for each in NAMES])
    if color:
        return Check(SHAPE[0].format(color=color), (shape,) if shape else (), (NOT_SHOWN,))
    if shape:
        return Check(COLOR[0].format(shape=shape), (), (NOT_SHOWN,))
    if icon or "icon" in lower:
        return Check(ICON[1], (icon,) if icon else (), (NOT_SHOWN,))
    if name or {"name", "word"} & set(lower):
        return Check(NAME[1], (name.capitalize(),) if name else (), (NOT_SHOWN,))
    if "code" in lower:
        return Check(CODE[0], (), (NOT_SHOWN,))
    raise UserError(
        f"The embedded model does not know what {request.strip()!r} asks for; it can watch for a "
        "code, a name, an icon or a coloured shape, such as: tell me when a red star appears."
    )


def _says_yes(text: str, check: Check) -> bool:
    """Whether the first words of an answer are one that means yes; where every answer but "not in
    the video" does, whether it says anything else."""
    if not check.yes:
        return is_shown(text)
    words = re.findall(r"\w+", text.lower())[:3]
    return any(answer.lower() in words for answer in check.yes)


def _first(words: Sequence[str], options: Iterable[str]) -> str:
    return next((word for word in words if word in set(options)), "")
