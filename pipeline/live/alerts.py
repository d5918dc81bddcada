"""Alerts ("tell me when a red star appears"): a cheap gate for every frame, then the model.

1 gate: the frame differs from the one before, or resembles the request more than earlier frames
  did, or the last check is long ago.
2 check: the model's probability that the request is met, over the frames since the last check. The
  strategy of the run (answer=) reads them, and the log has its trace.
3 notify: once the probability is high, or fair twice in a row; not again while the same
  appearance goes on.
Every decision is logged, with or without a notice. After the trigger of StreamBridge (arXiv
2505.05467), without its trained model.

A request becomes a question that the model knows (`Check`): one of the templates for the embedded
model, a yes-no question for others.
"""

import logging
import math
import queue
import re
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from encoders.errors import UserError
from encoders.models.clip import NoFrameEmbedder
from encoders.schema import Segment
from memory.schema import Evidence, Question
from pipeline.answer.schema import is_local
from pipeline.live.session import Session, check_text
from pipeline.needle_world.cards import COLORS, ICONS, NAMES, SHAPES
from pipeline.needle_world.questions import CODE, COLOR, ICON, NAME, NOT_SHOWN, SHAPE
from pipeline.qa import VideoQA
from pipeline.runtime.stage_timer import StageTimer
from pipeline.schema import Reading, Trace, is_shown

log = logging.getLogger(__name__)

Policy = Literal["gate", "boundary", "every"]


@dataclass(frozen=True, slots=True)
class Check:
    """A question about a few frames, and the answers that mean yes and no."""

    question: str
    yes: tuple[str, ...]  # (): every answer that does not mean no
    no: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Decision:
    """The outcome of one frame."""

    time: float  # seconds of the frame
    gate: str  # why the model ran: change, likeness or time; "": it did not
    score: float | None  # the model's probability that the request is met
    notifies: bool
    why: str  # in a word: told, goes on, unsure, not there, gate closed, no answer
    error: str = ""  # why the model gave no answer
    trace: Trace | None = None  # of the check: the strategy, and each pass of the model


@dataclass(frozen=True, slots=True)
class AlertRule:
    """When to run the model and when to notify. Seconds are video time."""

    policy: Policy = "gate"
    every_s: float = 8.0  # gate: the longest time without a check; every: the time between checks
    window_s: float = 8.0  # of the newest frames that a check reads, at most
    spread: float = 3.0  # deviations above the median that open the gate
    sure: float = 0.85  # probability that notifies at once
    fair: float = 0.6  # probability that notifies when it comes twice in a row
    rest_s: float = 3.0  # a pause of at most this length belongs to the same appearance
    memory: int = 64  # frames that median and deviation are taken over
    warm_up: int = 8  # with fewer frames than this, every frame opens the gate


class Alert:
    """One request on one session."""

    def __init__(
        self, session: Session, request: str, check: Check, rule: AlertRule | None = None
    ) -> None:
        """UserError on an empty request."""
        check_text(request)
        self.request, self.check, self.rule = request, check, rule or AlertRule()
        self.log: list[Decision] = []
        self._session = session
        self._request_row = session.qa.ingester.clip.embed_text(check.question)  # [E]
        self._previous_row: Tensor | None = None  # [E] of the frame before
        self._changes: deque[float] = deque(maxlen=self.rule.memory)
        self._likeness: deque[float] = deque(maxlen=self.rule.memory)
        self._checked_at = -math.inf
        self._present_at = -math.inf  # the last time at which the request was met
        self._was_fair = False

    def observe(self, time: float, row: Tensor) -> Decision:
        """Decide on the next frame, in time order. The session can already answer about it.

        time: seconds of the frame. row: [E] its embedding.
        """
        gate = self._gate(time, row)
        decision = (
            self._check(time, gate) if gate else Decision(time, "", None, False, "gate closed")
        )
        self.log.append(decision)
        return decision

    def _gate(self, time: float, row: Tensor) -> str:  # 1
        change = 0.0 if self._previous_row is None else 1.0 - float(row @ self._previous_row)
        likeness = float(row @ self._request_row)
        is_change = _stands_out(change, self._changes, self.rule)
        is_like = _stands_out(likeness, self._likeness, self.rule)
        self._previous_row = row
        self._changes.append(change)
        self._likeness.append(likeness)
        is_late = time - self._checked_at >= self.rule.every_s
        if self.rule.policy == "every":
            return "time" if is_late else ""
        if is_change or self.rule.policy == "boundary":
            return "change" if is_change else ""
        is_following = self._was_fair or time - self._present_at <= self.rule.rest_s
        return "likeness" if is_like or is_following else "time" if is_late else ""

    def _check(self, time: float, gate: str) -> Decision:
        after = self._checked_at + self._session.qa.ingester.interval
        since = min(max(after, time - self.rule.window_s), time)
        self._checked_at = time
        try:
            score, trace = self._score(since, time)  # 2
        except UserError as error:  # of a server; the next check may succeed
            return Decision(time, gate, None, False, "no answer", str(error))
        was_fair, self._was_fair = self._was_fair, score > self.rule.fair
        if score <= self.rule.fair:
            return Decision(time, gate, score, False, "not there", trace=trace)
        goes_on = time - self._present_at <= self.rule.rest_s
        if not (score > self.rule.sure or was_fair or goes_on):
            return Decision(time, gate, score, False, "unsure", trace=trace)
        self._present_at = time
        why = "goes on" if goes_on else "told"
        return Decision(time, gate, score, not goes_on, why, trace=trace)  # 3

    def _score(self, since: float, until: float) -> tuple[float, Trace | None]:
        """The probability that the request is met in these seconds, and how it came about."""
        qa, check = self._session.qa, self.check
        question = replace(
            self._session.question(check.question, since=max(since, 0.0)), asked_at=until
        )
        with self._session.queue.turn():
            return probability(qa, question, check)


class AlertWatcher:
    """The alerts of a session, in a thread of their own: encoding never waits for them."""

    def __init__(self, session: Session, notify: Callable[[Alert, Decision], None]) -> None:
        """notify: called in the watcher's thread for every decision that notifies."""
        self.alerts: list[Alert] = []
        self.problem = ""  # why the last check got no answer; "": it got one
        self._notify, self._last_time = notify, -math.inf
        self._queue: queue.SimpleQueue[Segment | None] = queue.SimpleQueue()
        self._has_gate = not isinstance(session.qa.ingester.clip, NoFrameEmbedder)
        self._thread = threading.Thread(target=self._run, name="alerts", daemon=True)
        self._thread.start()
        session.listen(self._queue.put)

    def add(self, alert: Alert) -> None:
        """Watch from the next frame on."""
        if not self._has_gate and not self.alerts:
            log.warning(
                "reelbank: warning: alerts look every %g s, and not when a picture changes, as "
                "this run has no frame embedder; clip=b32 is one",
                alert.rule.every_s,
            )
        self.alerts = [*self.alerts, alert]

    def remove(self, alert: Alert) -> None:
        """Stop watching."""
        self.alerts = [each for each in self.alerts if each is not alert]

    def close(self) -> None:
        """Decide on the frames in the queue, and stop."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (segment := self._queue.get()) is not None:
            for time, row in zip(segment.times.tolist(), segment.clip, strict=True):
                if time > self._last_time:
                    self._last_time = time
                    for alert in self.alerts:
                        self._take(alert, alert.observe(time, row))

    def _take(self, alert: Alert, decision: Decision) -> None:
        if decision.error and decision.error != self.problem:
            log.warning("reelbank: warning: an alert was not checked: %s", decision.error)
        if decision.error or decision.score is not None:
            self.problem = decision.error
        if decision.notifies:
            self._notify(alert, decision)


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


def _stands_out(value: float, earlier: Sequence[float], rule: AlertRule) -> bool:
    """True if a number is far above the earlier ones, by their median and median deviation.

    An appearance a moment ago raises a mean, which would close the gate for the next one.
    """
    if len(earlier) < rule.warm_up:
        return True
    values = torch.tensor(list(earlier), dtype=torch.float64)
    median = values.median()
    # 1.4826: makes it the standard deviation where the numbers are normal
    deviation = 1.4826 * (values - median).abs().median()
    return value > float(median + rule.spread * deviation) + 1e-6
