"""The alerts ("tell me when") of one feed, and the notices that they gave.

Knows the session and the model's alert check; no HTTP and no page.
"""

import threading
from collections import deque
from typing import Any

from encoders.errors import UserError
from pipeline.live.alerts import Alert, AlertWatcher, Decision, check_for
from pipeline.live.session import Session

_MAX_ALERTS = 8  # at the same time
_MAX_NOTICES = 50  # kept for the page


class AlertList:
    """Add and remove alerts, read their state. Safe to use from several threads."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._lock = threading.Lock()
        self._notices: deque[dict[str, Any]] = deque(maxlen=_MAX_NOTICES)
        self._count = 0
        self._closed = False
        self._watcher = AlertWatcher(session, self._record)

    def add(self, text: str) -> None:
        """UserError when the text is not a valid request, when there are too many alerts, or when
        the feed has been closed.
        """
        if self._closed:
            raise UserError(
                "This is not watched any more; start it again to be told of what it shows."
            )
        if len(self._watcher.alerts) >= _MAX_ALERTS:
            raise UserError(f"There are {_MAX_ALERTS} requests already; remove one first.")
        check = check_for(text, self._session.qa.backbone.questions)
        self._watcher.add(Alert(self._session, text.strip(), check))

    def remove(self, number: int) -> None:
        """Remove the alert at this position, if there is one."""
        alerts = self._watcher.alerts
        if 0 <= number < len(alerts):
            self._watcher.remove(alerts[number])

    def state(self) -> dict[str, Any]:
        """The requests, the notices, newest first, and why the last check got no answer, as JSON
        data."""
        with self._lock:
            return {
                "problem": self._watcher.problem,
                "requests": [each.request for each in self._watcher.alerts],
                "told": list(self._notices)[::-1],
            }

    def close(self) -> None:
        """Stop checking."""
        self._closed = True
        self._watcher.alerts = []  # skip the checks that are still queued
        self._watcher.close()

    def _record(self, alert: Alert, decision: Decision) -> None:
        with self._lock:
            self._count += 1
            self._notices.append(
                {"id": self._count, "request": alert.request, "at": round(decision.time, 2)}
            )
