"""Alerts ("tell me when a red star appears"): a trigger for every frame, then the model.

1 trigger: decides when the model is asked (pipeline/alerts/triggers.py).
2 check: the model's probability that the request is met, over the frames since the last check. The
  strategy of the run (answer=) reads them, and the log has its trace.
3 event: it begins once the probability is high, or fair twice in a row, and that notifies. Single
  frames, the newest first, say when it was last there: what a late check finds may be over. Then
  the model is asked about the newest frame until the event is over, so one event notifies once,
  whatever the trigger is.
Every decision is logged, with or without a notice.
"""

import math
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import Tensor

from encoders.errors import UserError
from pipeline.alerts.check import probability
from pipeline.alerts.schema import AlertRule, Check, Decision, Trigger, WatchedFrame
from pipeline.alerts.triggers import Gate
from pipeline.live.session import Session, check_text
from pipeline.schema import Trace

_LOGGED = 4096  # decisions kept in memory; the store has more
# while an event goes on, checks come this share of its age apart, and at most rest_s
_FOLLOW_SHARE = 1 / 8


@dataclass(frozen=True, slots=True)
class AlertState:
    """What an alert knows of its event: all that a new process needs to go on."""

    checked_at: float | None = None  # seconds of the last check
    was_fair: bool = False  # the last check found it likely, and not sure
    began: float | None = None  # seconds at which the event began; None: there is none
    present_at: float | None = None  # seconds of the last check that found it

    @classmethod
    def of(cls, values: dict[str, Any]) -> "AlertState":
        """From `to_dict`."""
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """As JSON data."""
        return asdict(self)


class Alert:
    """One request on one session."""

    def __init__(
        self,
        session: Session,
        request: str,
        check: Check,
        rule: AlertRule | None = None,
        trigger: Trigger | None = None,
        state: AlertState | None = None,
    ) -> None:
        """trigger: of this alert alone; None: the gate. state: where it goes on; None: at the
        beginning. UserError on an empty request."""
        check_text(request)
        self.request, self.check, self.rule = request, check, rule or AlertRule()
        self.state = state or AlertState()
        self._log: deque[Decision] = deque(maxlen=_LOGGED)
        self._session, self._trigger = session, trigger or Gate()
        self._request_row = session.qa.ingester.clip.embed_text(check.question)  # [E]

    @property
    def log(self) -> Sequence[Decision]:
        """The newest decisions, in time order."""
        return list(self._log)

    def observe(
        self, time: float, row: Tensor, look: Callable[[], float] | None = None
    ) -> Decision:
        """Decide on the next frame, in time order. The session can already answer about it.

        time: seconds of the frame. row: [E] its embedding. look: the model's probability that the
        frame alone shows what is asked; None: that of a check of the newest frame.
        """
        state = self.state
        since = math.inf if state.checked_at is None else time - state.checked_at
        frame = WatchedFrame(
            time, row, self._request_row, since, look or (lambda: self._score(time, time)[0])
        )
        try:
            gate = self._trigger.fires(frame)
        except UserError as error:  # of a trigger that asks the model
            decision = Decision(time, "probability", None, False, "no answer", str(error))
        else:
            follows = self._follows(time)
            if gate or follows:
                decision = self._check(time, gate or "follow", follows=follows)
            else:
                decision = Decision(time, "", None, False, "gate closed")
        self._log.append(decision)
        return decision

    def _follows(self, time: float) -> bool:
        """Whether the model is asked as an event goes on, or as the last check was not sure."""
        state = self.state
        if state.began is None or state.checked_at is None:
            return state.was_fair
        pause = min(self.rule.rest_s, (state.checked_at - state.began) * _FOLLOW_SHARE)
        return time - state.checked_at >= pause - 1e-6

    def _check(self, time: float, gate: str, *, follows: bool) -> Decision:
        state = self.state
        interval = self._session.qa.ingester.interval
        since = time - self.rule.window_s
        if state.checked_at is not None:
            since = max(since, state.checked_at + interval)
        if state.began is not None:  # what is there now says whether the event goes on
            since = time
        self.state = replace(state, checked_at=time)
        try:
            score, trace = self._score(min(since, time), time)  # 2
        except UserError as error:  # of a server; the next check may succeed
            return Decision(time, gate, None, False, "no answer", str(error))
        rule, is_fair = self.rule, score > self.rule.fair
        why, notifies = "not there", False
        if state.began is not None:  # 3
            if is_fair:
                why, state = "goes on", replace(state, present_at=time)
            elif state.present_at is None or time - state.present_at > rule.rest_s:
                why, state = "over", AlertState()
        elif score > rule.sure or (is_fair and state.was_fair):
            why, notifies = "told", True
            present_at = self._last_present(since, time)
            is_over = time - present_at > rule.rest_s  # a late check read it in the window alone
            state = AlertState() if is_over else replace(state, began=time, present_at=present_at)
        elif is_fair:
            why = "unsure"
        self.state = replace(state, checked_at=time, was_fair=is_fair)
        return Decision(time, gate, score, notifies, why, trace=trace)

    def _last_present(self, since: float, time: float) -> float:
        """Seconds of the newest frame that alone shows it; `time` where no single frame does, and
        where a server gives no answer."""
        if since == time:
            return time
        interval, at = self._session.qa.ingester.interval, time
        with suppress(UserError):
            while at >= max(since, 0.0) - 1e-6:
                if self._score(at, at)[0] > self.rule.fair:
                    return at
                at -= interval
        return time

    def _score(self, since: float, until: float) -> tuple[float, Trace | None]:
        """The probability that the request is met in these seconds, and how it came about."""
        qa, check = self._session.qa, self.check
        question = replace(
            self._session.question(check.question, since=max(since, 0.0)), asked_at=until
        )
        with self._session.queue.turn():
            return probability(qa, question, check)
