"""The alerts ("tell me when") of one stream, and the notices that they gave.

Alerts outlive the process: the next one that watches the stream goes on with them, in the middle of
an event too. Knows the session and the store; no HTTP and no page.
"""

import logging
import secrets
import threading
from collections import deque
from collections.abc import Callable
from datetime import datetime
from typing import Any

from encoders.errors import UserError
from pipeline.alerts.alert import Alert, AlertState
from pipeline.alerts.alert_store import AlertStore
from pipeline.alerts.alert_watcher import AlertWatcher
from pipeline.alerts.attachments import Attachments
from pipeline.alerts.check import check_for
from pipeline.alerts.outbox import Outbox
from pipeline.alerts.schema import AlertRule, Decision, Notice, Trigger
from pipeline.live.session import Session

log = logging.getLogger(__name__)

_MAX_ALERTS = 8  # at the same time
_MAX_NOTICES = 50  # kept for the page


class AlertList:
    """Add and remove alerts, read their state. Safe to use from several threads."""

    def __init__(
        self,
        session: Session,
        store: AlertStore,
        outbox: Outbox,
        *,
        new_trigger: Callable[[], Trigger],
        rule: AlertRule,
        attachments: Attachments,
        title: str = "",
    ) -> None:
        self.is_closed = False
        self._session, self._store, self._outbox = session, store, outbox
        self._new_trigger, self._rule, self._attachments = new_trigger, rule, attachments
        self._title = title or session.info.path
        self._lock = threading.Lock()
        self._notices: deque[dict[str, Any]] = deque(maxlen=_MAX_NOTICES)
        self._count = 0
        self._ids: dict[Alert, int] = {}  # numbers in the store
        self._watcher = AlertWatcher(session, record=self._record)
        for each in store.alerts(session.info.video_id):
            try:
                self._watch(each.id, each.request, each.state)
            except UserError as error:  # of another model, which goes on with it
                log.warning("reelbank: warning: alert %d is not watched: %s", each.id, error)

    def add(self, text: str) -> int:
        """Watch for something from the next frame on; the number of the alert. UserError when the
        text is not a valid request, when there are too many alerts, or when the stream has been
        closed.
        """
        if self.is_closed:
            raise UserError(
                "This is not watched any more; start it again to be told of what it shows."
            )
        text = text.strip()
        check_for(text, self._session.qa.backbone.questions)  # refuses before anything is kept
        with self._lock:
            if len(self._watcher.alerts) >= _MAX_ALERTS:
                raise UserError(f"There are {_MAX_ALERTS} requests already; remove one first.")
            number = self._store.add(self._session.info.video_id, text)
            self._watch(number, text, AlertState())
        return number

    def remove(self, place: int) -> None:
        """Remove the alert at this place of the list, if there is one."""
        with self._lock:
            alerts = self._watcher.alerts
            if 0 <= place < len(alerts):
                self._forget(alerts[place])

    def remove_number(self, number: int) -> bool:
        """Remove the alert of this number, also between two sessions; False where there is none."""
        with self._lock:
            own = [alert for alert, each in self._ids.items() if each == number]
            for alert in own:
                self._forget(alert)
            return bool(own)

    @property
    def requests(self) -> dict[int, str]:
        """The requests by the numbers of their alerts."""
        with self._lock:
            return {number: alert.request for alert, number in self._ids.items()}

    def state(self) -> dict[str, Any]:
        """The requests, the notices, newest first, why the last check got no answer, and why
        notices are not delivered, as JSON data."""
        with self._lock:
            return {
                "problem": self._watcher.problem,
                "requests": [each.request for each in self._watcher.alerts],
                "told": list(self._notices)[::-1],
                "undelivered": {name: why for name, why in self._outbox.problems.items() if why},
            }

    def close(self) -> None:
        """Stop checking. The alerts stay for the next time that the stream is watched."""
        if not self.is_closed:
            self.is_closed = True
            self._watcher.alerts = []  # skip the checks that are still queued
            self._watcher.close()

    def _forget(self, alert: Alert) -> None:
        self._watcher.remove(alert)
        self._store.remove(self._ids.pop(alert))

    def _watch(self, number: int, request: str, state: AlertState) -> None:
        check = check_for(request, self._session.qa.backbone.questions)
        alert = Alert(self._session, request, check, self._rule, self._new_trigger(), state)
        self._ids[alert] = number
        self._watcher.add(alert)

    def _record(self, alert: Alert, decision: Decision, wall: float | None) -> None:
        number = self._ids.get(alert)
        if number is None:  # removed meanwhile
            return
        notice = self._notice(number, alert, decision, wall) if decision.notifies else None
        self._store.record(number, decision, wall, alert.state, notice, self._outbox.names)
        if notice is None:
            return
        with self._lock:
            self._count += 1
            self._notices.append(
                {"id": self._count, "request": alert.request, "at": round(decision.time, 2)}
            )
        self._outbox.wake()

    def _notice(self, number: int, alert: Alert, decision: Decision, wall: float | None) -> Notice:
        notice_id = secrets.token_hex(8)
        picture, clip = self._attachments.write(self._store.files, notice_id, decision.time)
        body = {
            "id": notice_id,
            "type": "alert",
            "alert": number,
            "request": alert.request,
            "stream": self._title,
            "video": self._session.info.video_id,
            "time": round(decision.time, 3),
            "at": None
            if wall is None
            else datetime.fromtimestamp(wall).astimezone().isoformat(timespec="milliseconds"),
            "score": decision.score,
            "trigger": decision.gate,
        }
        return Notice(0, body, picture, clip, str(self._session.qa.bank.root))
