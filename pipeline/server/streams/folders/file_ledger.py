"""Which files of a folder a stream has taken, and at which seconds of video time: one SQLite file.

A row is on the disk before the first frame of its file is handed on. So a new process knows from
the end of the bank's last segment which files are whole in the bank, and which one goes on.
"""

import sqlite3
import threading
from dataclasses import dataclass
from pathlib import Path

from encoders.errors import UserError
from pipeline.watch.folder import FilmFile

_MOST = 200_000  # rows; the oldest ones go first
_CLEAN_EVERY = 1000  # rows between two looks for what is too much
_TABLE = """
CREATE TABLE IF NOT EXISTS files (
    number INTEGER PRIMARY KEY AUTOINCREMENT, path TEXT NOT NULL, size INTEGER NOT NULL,
    changed_ns INTEGER NOT NULL, start REAL NOT NULL, stop REAL NOT NULL, began REAL NOT NULL,
    problem TEXT NOT NULL, UNIQUE (path, size, changed_ns)
);
"""
_COLUMNS = "path, size, changed_ns, start, stop, began, problem"


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file as it was taken. One that was written again is another one."""

    path: str  # below the folder
    size: int  # bytes
    changed_ns: int  # its time of change
    start: float  # seconds of video time of its first frame
    end: float
    began: float  # Unix seconds of second 0 of the video
    problem: str = ""  # why it was passed over, or not read to its end


class FileLedger:
    """The files of one stream. Threads: many may use it."""

    def __init__(self, path: Path) -> None:
        """path: made if it is not there. UserError where it cannot be."""
        self._path, self._lock, self._count = path, threading.Lock(), 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=30.0, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.executescript(_TABLE)
        except (OSError, sqlite3.Error) as error:
            raise self._failed(error) from error

    def entry(self, path: str, file: FilmFile) -> FileEntry | None:
        """What is known of a file as it is now. path: below the folder."""
        rows = self._rows(
            "WHERE path = ? AND size = ? AND changed_ns = ?", path, file.size, file.changed_ns
        )
        return rows[0] if rows else None

    def at(self, seconds: float) -> FileEntry | None:
        """The file that shows a second of video time and goes on behind it."""
        rows = self._rows(
            "WHERE problem = '' AND start < ? AND stop > ? ORDER BY number DESC LIMIT 1",
            seconds,
            seconds,
        )
        return rows[0] if rows else None

    def put(self, entry: FileEntry) -> None:
        """Keep an entry, in place of that of the same file. UserError where the disk refuses."""
        sql = f"INSERT OR REPLACE INTO files ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)"
        values = (
            *(entry.path, entry.size, entry.changed_ns, entry.start, entry.end),
            *(entry.began, entry.problem),
        )
        try:
            with self._lock, self._db:
                self._db.execute(sql, values)
                self._count += 1
                if self._count % _CLEAN_EVERY == 0:
                    self._db.execute(
                        "DELETE FROM files WHERE number <= (SELECT max(number) FROM files) - ?",
                        (_MOST,),
                    )
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def forget_from(self, seconds: float) -> None:
        """Forget the files without a frame before this second: none of them is in the bank. Those
        that were passed over stay so."""
        with self._lock, self._db:
            self._db.execute("DELETE FROM files WHERE problem = '' AND start >= ?", (seconds,))

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    def _rows(self, where: str, *values: object) -> list[FileEntry]:
        try:
            with self._lock:
                rows = self._db.execute(f"SELECT {_COLUMNS} FROM files {where}", values).fetchall()
        except sqlite3.Error as error:
            raise self._failed(error) from error
        return [FileEntry(*row) for row in rows]

    def _failed(self, error: Exception) -> UserError:
        return UserError(
            f"{self._path} cannot hold what a stream has taken ({error}); make room, or move it "
            "away"
        )
