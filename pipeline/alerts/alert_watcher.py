"""The alerts of a session, in a thread of their own. Knows no store and no notifier."""

import logging
import math
import queue
import threading
from collections.abc import Callable

from encoders.models.clip import NoFrameEmbedder
from encoders.schema import Segment
from pipeline.alerts.alert import Alert
from pipeline.alerts.check import frame_probability
from pipeline.alerts.schema import Decision
from pipeline.live.session import Session

log = logging.getLogger(__name__)

OnDecision = Callable[[Alert, Decision, float | None], None]
"""Gets an alert, its decision, and Unix seconds of the frame, if they are known."""


class AlertWatcher:
    """The alerts of a session, in a thread of their own: encoding never waits for them."""

    def __init__(
        self,
        session: Session,
        notify: Callable[[Alert, Decision], None] = lambda alert, decision: None,
        record: OnDecision = lambda alert, decision, wall: None,
    ) -> None:
        """notify: called in the watcher's thread for every decision that notifies. record: for
        every decision."""
        self.alerts: list[Alert] = []
        self.problem = ""  # why the last check got no answer; "": it got one
        self._qa, self._notify, self._record = session.qa, notify, record
        self._last_time = -math.inf
        self._queue: queue.SimpleQueue[Segment | None] = queue.SimpleQueue()
        self._has_gate = not isinstance(session.qa.ingester.clip, NoFrameEmbedder)
        self._thread = threading.Thread(target=self._run, name="alerts", daemon=True)
        self._thread.start()
        session.listen(self._queue.put)

    def add(self, alert: Alert) -> None:
        """Watch from the next frame on."""
        if not self._has_gate and not self.alerts:
            log.warning(
                "reelbank: warning: alerts look by the clock, and not when a picture changes, as "
                "this run has no frame embedder; clip=b32 is one"
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
            for place, time in enumerate(segment.times.tolist()):
                if time > self._last_time:
                    self._last_time = time
                    for alert in self.alerts:
                        self._watch(alert, segment, place, time)

    def _watch(self, alert: Alert, segment: Segment, place: int, time: float) -> None:
        try:
            decision = alert.observe(
                time,
                segment.clip[place],
                lambda: frame_probability(self._qa, segment, place, alert.check),
            )
            wall = None if segment.wall is None else segment.wall + time - segment.start
            self._take(alert, decision, wall)
        except Exception:  # an accident of one alert is not the end of the others
            log.exception("reelbank: an alert failed: %s", alert.request)

    def _take(self, alert: Alert, decision: Decision, wall: float | None) -> None:
        if decision.error and decision.error != self.problem:
            log.warning("reelbank: warning: an alert was not checked: %s", decision.error)
        if decision.error or decision.score is not None:
            self.problem = decision.error
        self._record(alert, decision, wall)
        if decision.notifies:
            self._notify(alert, decision)
