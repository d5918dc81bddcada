"""Alerts, their decisions, their notices, and what still has to be delivered: one SQLite file.

A decision, the state of its event, and its notice with all deliveries are one transaction. So a
process that is killed goes on with the same event, and loses no notice that was made.
"""

import json
import sqlite3
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from encoders.errors import UserError
from pipeline.alerts.alert import AlertState
from pipeline.alerts.schema import Decision, Notice

_MOST_DECISIONS = 200_000  # kept, of all alerts together: two days of one at a frame a second
_MOST_NOTICES = 1000  # kept, with their pictures and clips
_CLEAN_EVERY = 1000  # rows between two looks for what is too much
_TABLES = """
CREATE TABLE IF NOT EXISTS alerts (
    id INTEGER PRIMARY KEY AUTOINCREMENT, video_id TEXT NOT NULL, request TEXT NOT NULL,
    made REAL NOT NULL, state TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS decisions (
    number INTEGER PRIMARY KEY AUTOINCREMENT, alert INTEGER NOT NULL, time REAL NOT NULL,
    wall REAL, gate TEXT NOT NULL, score REAL, notifies INTEGER NOT NULL, why TEXT NOT NULL,
    error TEXT NOT NULL, trace TEXT
);
CREATE TABLE IF NOT EXISTS notices (
    number INTEGER PRIMARY KEY AUTOINCREMENT, made REAL NOT NULL, body TEXT NOT NULL,
    picture TEXT, clip TEXT, bank TEXT NOT NULL DEFAULT ''
);
CREATE TABLE IF NOT EXISTS deliveries (
    notice INTEGER NOT NULL, notifier TEXT NOT NULL, tries INTEGER NOT NULL DEFAULT 0,
    state TEXT NOT NULL DEFAULT 'waiting', problem TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (notice, notifier)
);
CREATE INDEX IF NOT EXISTS waiting ON deliveries (notifier, notice) WHERE state = 'waiting';
"""


@dataclass(frozen=True, slots=True)
class StoredAlert:
    """An alert as a new process finds it."""

    id: int
    request: str
    state: AlertState


@dataclass(frozen=True, slots=True)
class Delivery:
    """A notice that waits for one notifier."""

    notice: Notice
    notifier: str
    tries: int
    made: float  # Unix seconds of the notice


class AlertStore:
    """The alerts of one bank. Threads: many may use it."""

    def __init__(self, folder: Path) -> None:
        """folder: made if it is not there. UserError where it cannot be."""
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / "alerts.sqlite"
            self._db = sqlite3.connect(path, timeout=30.0, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode = WAL")
            # kill -9 loses nothing; a power cut may lose the last decisions
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.executescript(_TABLES)
            columns = [row[1] for row in self._db.execute("PRAGMA table_info(notices)")]
            if "bank" not in columns:  # of an earlier version
                self._db.execute("ALTER TABLE notices ADD COLUMN bank TEXT NOT NULL DEFAULT ''")
        except (OSError, sqlite3.Error) as error:
            raise UserError(
                f"alerts={folder} cannot hold alerts ({error}); give another folder, or move what "
                "is there away"
            ) from error
        self._lock = threading.Lock()
        self._count = 0

    def alerts(self, video_id: str) -> list[StoredAlert]:
        """The alerts of a stream, the oldest first."""
        with self._lock:
            rows = self._db.execute(
                "SELECT id, request, state FROM alerts WHERE video_id = ? ORDER BY id", (video_id,)
            ).fetchall()
        return [StoredAlert(each, text, AlertState.of(json.loads(own))) for each, text, own in rows]

    def add(self, video_id: str, request: str) -> int:
        """Keep an alert; its id."""
        with self._lock, self._db:
            added = self._db.execute(
                "INSERT INTO alerts (video_id, request, made, state) VALUES (?, ?, ?, ?)",
                (video_id, request, time.time(), json.dumps(AlertState().to_dict())),
            )
            return int(added.lastrowid or 0)

    def remove(self, alert: int) -> None:
        """Forget an alert; its decisions and notices stay."""
        with self._lock, self._db:
            self._db.execute("DELETE FROM alerts WHERE id = ?", (alert,))

    def record(
        self,
        alert: int,
        decision: Decision,
        wall: float | None,
        state: AlertState,
        notice: Notice | None,
        notifiers: Sequence[str],
    ) -> int:
        """Keep a decision, the state behind it, and its notice for these notifiers, whole or not at
        all. wall: Unix seconds of the frame. The number of the notice; 0 without one."""
        trace = None if decision.trace is None else json.dumps(asdict(decision.trace))
        with self._lock, self._db:
            self._db.execute(
                "INSERT INTO decisions (alert, time, wall, gate, score, notifies, why, error,"
                " trace) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (alert, decision.time, wall, decision.gate, decision.score, decision.notifies,
                 decision.why, decision.error, trace),
            )  # fmt: skip
            self._db.execute(
                "UPDATE alerts SET state = ? WHERE id = ?", (json.dumps(state.to_dict()), alert)
            )
            self._count += 1
            if self._count % _CLEAN_EVERY == 0:
                self._clean()
            if notice is None:
                return 0
            files = [None if each is None else each.name for each in (notice.picture, notice.clip)]
            number = self._db.execute(
                "INSERT INTO notices (made, body, picture, clip, bank) VALUES (?, ?, ?, ?, ?)",
                (time.time(), json.dumps(notice.body), *files, notice.bank),
            ).lastrowid
            self._db.executemany(
                "INSERT INTO deliveries (notice, notifier) VALUES (?, ?)",
                [(number, name) for name in notifiers],
            )
            return int(number or 0)

    def decisions(self, alert: int, most: int = 1000) -> list[dict[str, Any]]:
        """The newest decisions of an alert, in time order, as JSON data."""
        with self._lock:
            rows = self._db.execute(
                "SELECT time, wall, gate, score, notifies, why, error, trace FROM decisions"
                " WHERE alert = ? ORDER BY number DESC LIMIT ?", (alert, most),
            ).fetchall()  # fmt: skip
        names = ("time", "wall", "gate", "score", "notifies", "why", "error", "trace")
        every = [dict(zip(names, row, strict=True)) for row in reversed(rows)]
        for each in every:
            each["notifies"] = bool(each["notifies"])
            each["trace"] = None if each["trace"] is None else json.loads(each["trace"])
        return every

    def notices(self, after: int = 0, most: int = 100) -> list[Notice]:
        """The notices behind a number, the oldest first."""
        with self._lock:
            rows = self._db.execute(
                "SELECT number, body, picture, clip, bank FROM notices WHERE number > ?"
                " ORDER BY number LIMIT ?", (after, most),
            ).fetchall()  # fmt: skip
        return [self._notice(*row) for row in rows]

    @property
    def newest(self) -> int:
        """The number of the newest notice; 0: there is none."""
        with self._lock:
            return int(self._db.execute("SELECT max(number) FROM notices").fetchone()[0] or 0)

    def next_delivery(self, notifier: str) -> Delivery | None:
        """The oldest notice that waits for a notifier."""
        with self._lock:
            row = self._db.execute(
                "SELECT number, body, picture, clip, bank, tries, made FROM deliveries"
                " JOIN notices ON notices.number = deliveries.notice"
                " WHERE notifier = ? AND deliveries.state = 'waiting' ORDER BY notice LIMIT 1",
                (notifier,),
            ).fetchone()
        return None if row is None else Delivery(self._notice(*row[:5]), notifier, *row[5:])

    def waiting(self, notifier: str) -> int:
        """How many notices wait for a notifier."""
        with self._lock:
            count = self._db.execute(
                "SELECT count(*) FROM deliveries WHERE notifier = ? AND state = 'waiting'",
                (notifier,),
            ).fetchone()
        return int(count[0])

    def settle(self, delivery: Delivery, state: str, problem: str = "") -> None:
        """Keep how a try ended. state: sent, dead, or waiting for the next try."""
        with self._lock, self._db:
            self._db.execute(
                "UPDATE deliveries SET state = ?, problem = ?, tries = tries + 1"
                " WHERE notice = ? AND notifier = ?",
                (state, problem, delivery.notice.number, delivery.notifier),
            )

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    @property
    def files(self) -> Path:
        """The folder of pictures and clips."""
        return self.folder / "notices"

    def _notice(
        self, number: int, body: str, picture: str | None, clip: str | None, bank: str
    ) -> Notice:
        shown, cut = (None if name is None else self.files / name for name in (picture, clip))
        return Notice(number, json.loads(body), shown, cut, bank)

    def _clean(self) -> None:
        """Drop the oldest decisions and notices. A notice that waits for a notifier stays."""
        self._db.execute(
            "DELETE FROM decisions WHERE number <= (SELECT max(number) FROM decisions) - ?",
            (_MOST_DECISIONS,),
        )
        old = self._db.execute(
            "SELECT number, picture, clip FROM notices"
            " WHERE number <= (SELECT max(number) FROM notices) - ? AND number NOT IN"
            " (SELECT notice FROM deliveries WHERE state = 'waiting')",
            (_MOST_NOTICES,),
        ).fetchall()
        for number, *names in old:
            for name in filter(None, names):
                (self.files / name).unlink(missing_ok=True)
            self._db.execute("DELETE FROM deliveries WHERE notice = ?", (number,))
            self._db.execute("DELETE FROM notices WHERE number = ?", (number,))
