"""Standing requests: "tell me when a red star appears". A cheap gate for every frame, the model only when it opens.

1 gate: the frame looks unlike the one before it, or more like the request than frames before it did, or it is time anyway.
2 check: what the model gives for "it is there", over the frames since the last check, as a probability.
3 tell: when it is sure once, or fairly sure twice in a row; not again while the same appearance goes on.
Every decision is logged, also those that told nobody. (After StreamBridge's trigger, without its trained model.)

A request becomes a question that the model knows (`Check`): for the embedded model from its templates, for others yes or no.
"""

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
from encoders.schema import Segment
from pipeline.live.session import Session, check_text
from pipeline.needle_world.cards import COLORS, ICONS, NAMES, SHAPES
from pipeline.needle_world.questions import CODE, COLOR, ICON, NAME, NOT_SHOWN, SHAPE
from pipeline.runtime.stage_timer import StageTimer

Policy = Literal["gate", "boundary", "every"]


@dataclass(frozen=True, slots=True)
class Check:
    """What a model is asked about a few frames, and which answers mean that what was requested is there."""

    question: str
    says: tuple[str, ...]  # answers that mean yes; () = all but those that mean no
    instead: tuple[str, ...]  # answers that mean no


@dataclass(frozen=True, slots=True)
class Decision:
    """One look at a frame."""

    time: float  # seconds of the frame
    gate: str  # why the model was asked: change, likeness or time; "" = it was not
    score: float | None  # the model's probability that it is there
    told: bool
    why: str  # in a word: told, goes on, unsure, not there, gate closed


@dataclass(frozen=True, slots=True)
class Rule:
    """When to ask the model and when to tell; seconds are of video time."""

    policy: Policy = "gate"
    every_s: float = 8.0  # gate: ask after so long anyway; every: ask so often
    window_s: float = 8.0  # frames that a check sees, at most
    spread: float = 3.0  # deviations above the median that open the gate
    sure: float = 0.85  # told at once
    fair: float = 0.6  # told when it comes twice in a row
    rest_s: float = 3.0  # the same appearance, when it is seen again within so long
    memory: int = 64  # frames that median and deviation are of
    warm_up: int = 8  # with fewer every frame opens the gate


class Standing:
    """One request on one session. `look` is called with each new frame in time order."""

    def __init__(
        self, session: Session, request: str, check: Check, rule: Rule | None = None
    ) -> None:
        check_text(request)
        self.request, self.check, self.rule = request, check, rule or Rule()
        self.log: list[Decision] = []
        self._session = session
        self._wanted = session.qa.ingester.clip.embed_text(check.question)  # [E]
        self._before: Tensor | None = None  # [E] row of the frame before
        self._changes: deque[float] = deque(maxlen=self.rule.memory)
        self._likeness: deque[float] = deque(maxlen=self.rule.memory)
        self._checked_at = -math.inf
        self._present_at = -math.inf  # when it was last seen to be there
        self._was_fair = False

    def look(self, time: float, row: Tensor) -> Decision:
        """time: of the frame, which can be asked about by now; row: [E] its embedding."""
        gate = self._gate(time, row)
        decision = (
            Decision(time, "", None, False, "gate closed") if not gate else self._check(time, gate)
        )
        self.log.append(decision)
        return decision

    def _gate(self, time: float, row: Tensor) -> str:  # 1
        change = 0.0 if self._before is None else 1.0 - float(row @ self._before)
        likeness = float(row @ self._wanted)
        changed, like = (
            _stands_out(change, self._changes, self.rule),
            _stands_out(likeness, self._likeness, self.rule),
        )
        self._before = row
        self._changes.append(change)
        self._likeness.append(likeness)
        late = time - self._checked_at >= self.rule.every_s
        if self.rule.policy == "every":
            return "time" if late else ""
        if changed or self.rule.policy == "boundary":
            return "change" if changed else ""
        following = self._was_fair or time - self._present_at <= self.rule.rest_s
        return "likeness" if like or following else "time" if late else ""

    def _check(self, time: float, gate: str) -> Decision:
        since = max(self._checked_at + 1e-6, time - self.rule.window_s)
        score = self._score(since, time)  # 2
        self._checked_at = time
        was_fair, self._was_fair = self._was_fair, score > self.rule.fair
        if score <= self.rule.fair:
            return Decision(time, gate, score, False, "not there")
        goes_on = time - self._present_at <= self.rule.rest_s
        if not (score > self.rule.sure or was_fair or goes_on):
            return Decision(time, gate, score, False, "unsure")
        self._present_at = time
        return Decision(time, gate, score, not goes_on, "goes on" if goes_on else "told")  # 3

    def _score(self, since: float, until: float) -> float:
        """The probability that what was requested is there in these seconds."""
        qa, check = self._session.qa, self.check
        question = replace(
            self._session.question(check.question, since=max(since, 0.0)), asked_at=until
        )
        with self._session.queue.turn():
            evidence = qa.bank.recall(
                question, read_tokens=qa.answerer.read_tokens, kv=qa.answerer.reader.needs_kv
            )
            ids = [qa.backbone.ids(f" {text}") for text in (*check.says, *check.instead)]
            logs, _ = qa.answerer.reader.log_likelihoods(
                evidence, check.question, ids, StageTimer()
            )
        chances = [math.exp(each) for each in logs]
        no = sum(chances[len(check.says) :])
        yes = sum(chances[: len(check.says)]) if check.says else 1.0 - no
        return yes if NOT_SHOWN in check.instead else yes / (yes + no)


class Watcher:
    """Standing requests of a session, in a thread of their own: the writer never waits for them."""

    def __init__(self, session: Session, tell: Callable[[Standing, Decision], None]) -> None:
        """tell: is called in the watcher's thread, for what is to be told."""
        self.requests: list[Standing] = []
        self._tell, self._seen = tell, -math.inf
        self._queue: queue.SimpleQueue[Segment | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="standing", daemon=True)
        self._thread.start()
        session.listen(self._queue.put)

    def add(self, standing: Standing) -> None:
        """From the next frame on."""
        self.requests = [*self.requests, standing]

    def remove(self, standing: Standing) -> None:
        self.requests = [each for each in self.requests if each is not standing]

    def close(self) -> None:
        """After what has come was looked at."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (segment := self._queue.get()) is not None:
            for time, row in zip(segment.times.tolist(), segment.clip, strict=True):
                if time > self._seen:
                    self._seen = time
                    for standing in self.requests:
                        decision = standing.look(time, row)
                        if decision.told:
                            self._tell(standing, decision)


def check_for(request: str, *, embedded: bool) -> Check:
    """The question behind a request. UserError where the embedded model knows none: it understands "when a red star appears",
    "when there is a code", "the name Alice", "a key"."""
    check_text(request)
    if not embedded:
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
        f"The embedded model does not know what {request.strip()!r} asks for; it can watch for a code, a name, an icon or a "
        "coloured shape, such as: tell me when a red star appears."
    )


def _first(words: Sequence[str], options: Iterable[str]) -> str:
    return next((word for word in words if word in set(options)), "")


def _stands_out(value: float, before: Sequence[float], rule: Rule) -> bool:
    """Whether a number is far above those before it. By median and median deviation: a request that was met a moment ago must
    not close the gate for the next time, as it does to a mean."""
    if len(before) < rule.warm_up:
        return True
    known = torch.tensor(list(before), dtype=torch.float64)
    middle = known.median()
    # the standard deviation, where the numbers are normal
    deviation = 1.4826 * (known - middle).abs().median()
    return value > float(middle + rule.spread * deviation) + 1e-6
