"""The one SQLite file of a bank: connection, schema, transactions.

Knows no record: the catalog and the text rows store theirs in it. WAL mode: readers go on while a
row is committed. synchronous=FULL: a committed row is on the disk before `transaction` ends. Many
threads may use it, and many processes may read while one writes. Reading works on a read-only disk.
"""

import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from encoders.errors import UserError
from memory.storage.atomic import sync_folder
from memory.storage.checksums import of_bytes
from memory.storage.file_access import why_not_regular
from memory.storage.os_errors import is_damage, message

# sum: SQLite has no checksums of its own. It covers a row except for the columns that change in
# place (finished, first_ordinal) and those that only later versions know. finished_sum covers
# finished; window and vectors are seals of other files.
# times and tokens are here and in the segment files, so that planning a recall opens no file:
# 12 bytes per frame, 1 MB for a day at one frame per second.
# SQLite stores these statements verbatim in the file: a backslash only breaks a line here.
_TABLES = """
CREATE TABLE IF NOT EXISTS videos (
    id TEXT PRIMARY KEY, path TEXT NOT NULL, duration REAL NOT NULL, decoder TEXT NOT NULL, \
broke_at REAL,
    note TEXT NOT NULL, interval REAL NOT NULL, finished INTEGER NOT NULL, \
sum TEXT NOT NULL,
    pruned_first INTEGER, pruned_start REAL, finished_sum TEXT
);
CREATE TABLE IF NOT EXISTS segments (
    video_id TEXT NOT NULL, number INTEGER NOT NULL, start REAL NOT NULL, "end" REAL NOT NULL,
    frames INTEGER NOT NULL, first_ordinal INTEGER NOT NULL, bytes INTEGER NOT NULL, \
checksum TEXT NOT NULL,
    times BLOB NOT NULL, tokens BLOB NOT NULL, sum TEXT NOT NULL, wall REAL, window TEXT, \
PRIMARY KEY (video_id, number)
);
"""
# Columns that older catalogs lack; NULL in their rows.
_LATER = {
    "videos": ("pruned_first INTEGER", "pruned_start REAL", "finished_sum TEXT"),
    "segments": ("wall REAL", "window TEXT"),
    "text_blocks": ("vectors TEXT",),
}
# An overlap has two ends, and an index bounds only one. The longest segment bounds the other.
_INDEXES = """
CREATE INDEX IF NOT EXISTS segments_by_start ON segments (video_id, start);
CREATE INDEX IF NOT EXISTS segments_by_wall ON segments (video_id, wall);
CREATE INDEX IF NOT EXISTS segments_by_length ON segments ("end" - start);
"""
_DIGEST_ROWS = 20_000  # at a time


class CatalogDamagedError(UserError):
    """The catalog cannot be used; it can be rebuilt from the segment files."""


class Database:
    """The connection that the catalog and the text rows of a bank share.

    path: of catalog.sqlite; created where it does not exist. Raises CatalogDamagedError when the
    file cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # one connection for all threads: rows are small, and a commit takes milliseconds
        self._lock = threading.RLock()
        for suffix in ("", "-wal", "-shm"):
            what = why_not_regular(path.with_name(path.name + suffix))
            if what is not None:
                raise _damage_error(f"catalog {path}{suffix} cannot be used ({what})", path.parent)
        is_new = not path.exists()
        try:
            self._db = _connect(path)
            self._db.execute("SELECT 1 FROM segments, videos LIMIT 1")
        except sqlite3.DatabaseError as error:
            raise self._error(error) from error
        self._inode = path.stat().st_ino
        if is_new:
            sync_folder(path.parent)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Commits all changes at the end, or none when an error is raised. Must not be nested."""
        with self._lock, self._db:
            yield self._db

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """All reads inside see the same moment."""
        with self._lock:
            self.rows("BEGIN")
            try:
                yield
            finally:
                self._db.rollback()

    def rows(self, sql: str, *values: str | float) -> Sequence[tuple]:
        """All rows of a query. Raises CatalogDamagedError when the file is damaged."""
        try:
            with self._lock:
                # damage may show at the first row or at the last
                return self._db.execute(sql, values).fetchall()
        except sqlite3.DatabaseError as error:
            raise self._error(error) from error

    def digest(self, sql: str) -> str:
        """A checksum of all rows of a query. Raises CatalogDamagedError when the file is
        damaged."""
        try:
            with self._lock:
                return digest(self._db.execute(sql))
        except sqlite3.DatabaseError as error:
            raise self._error(error) from error

    def state(self) -> tuple[int, int]:
        """Differs after every change, by this process or another."""
        with self._lock:
            return int(self.rows("PRAGMA data_version")[0][0]), self._db.total_changes

    def revision(self) -> int:
        """Differs after every change that is not an addition at the end of a video."""
        return int(self.rows("PRAGMA user_version")[0][0])

    def damage(self) -> list[str]:
        """What SQLite itself finds wrong with the file."""
        return [text for (text,) in self.rows("PRAGMA integrity_check") if text != "ok"]

    @property
    def is_replaced(self) -> bool:
        """True if another file, or none, has this path now: writes here would be lost."""
        try:
            return self.path.stat().st_ino != self._inode
        except FileNotFoundError:
            return True

    def row_error(self) -> CatalogDamagedError:
        """The error to raise for a row that does not match its sum."""
        return _damage_error(
            f"catalog {self.path} has a row that is not as it was written", self.path.parent
        )

    def lost_rows_error(self, count: int) -> CatalogDamagedError:
        """The error to raise if more segments lie in the bank than a crash can leave."""
        return _damage_error(
            f"catalog {self.path} lacks {count} segments that are in the bank: it is an older copy "
            "or another bank's",
            self.path.parent,
        )

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def _error(self, error: sqlite3.DatabaseError) -> UserError:
        # full, locked, no access, a read error: the bytes are not at fault
        if isinstance(error, sqlite3.OperationalError) and not is_damage(error):
            return UserError(message(self.path.parent, error))
        return _damage_error(f"catalog {self.path} cannot be used ({error})", self.path.parent)


def raise_revision(db: sqlite3.Connection) -> None:
    """Part of a transaction that changes anything but the end of a video."""
    (revision,) = db.execute("PRAGMA user_version").fetchone()
    db.execute(f"PRAGMA user_version = {revision + 1}")


def as_stored(path: str) -> str | bytes:
    """A path as SQLite takes it: one that is not UTF-8, as the bytes of its name."""
    try:
        path.encode()
        return path
    except UnicodeEncodeError:
        return os.fsencode(path)


def row_sum(*values: str | float | bytes | None) -> str:
    """Checksum of the values of a row."""
    return of_bytes(repr(values).encode())


def digest(cursor: sqlite3.Cursor) -> str:
    """A checksum of all rows that a cursor yields, in their order."""
    text = ""
    while rows := cursor.fetchmany(_DIGEST_ROWS):
        text = of_bytes((text + repr(rows)).encode())
    return text


def _connect(path: Path) -> sqlite3.Connection:
    is_fixed = not os.access(path.parent, os.W_OK)
    if path.exists() and (is_fixed or not os.access(path, os.W_OK)):
        # A read-only disk: SQLite cannot create its shared memory beside the file. Without a
        # writer it needs none, unless a log was never merged into the file.
        log = path.with_name(path.name + "-wal")
        has_log = log.exists() and log.stat().st_size
        still = "&immutable=1" if is_fixed and not has_log else ""
        db = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=ro{still}", uri=True, check_same_thread=False
        )
        # queries prefer a temporary view to the table of the same name
        for table, columns in _missing_columns(db).items():
            more = ", ".join(f"NULL AS {column.split()[0]}" for column in columns)
            db.execute(f"CREATE TEMP VIEW {table} AS SELECT *, {more} FROM main.{table}")
        return db
    db = sqlite3.connect(path, timeout=30.0, check_same_thread=False)
    db.execute("PRAGMA journal_mode = WAL")  # readers go on during a commit
    db.execute("PRAGMA synchronous = FULL")  # NORMAL may lose the last rows at a power cut: law 4
    db.executescript(_TABLES)
    if _missing_columns(db):
        _bring_up_to_date(db)
    db.executescript(_INDEXES)
    return db


def _missing_columns(db: sqlite3.Connection) -> dict[str, list[str]]:
    """Columns that an older catalog does not have, by table."""
    missing_columns = {}
    for table, columns in _LATER.items():
        existing = {row[1] for row in db.execute(f"PRAGMA table_info({table})")}
        missing = [column for column in columns if column.split()[0] not in existing]
        if existing and missing:
            missing_columns[table] = missing
    return missing_columns


def _bring_up_to_date(db: sqlite3.Connection) -> None:
    db.execute("BEGIN IMMEDIATE")  # another process may have done it meanwhile
    for table, columns in _missing_columns(db).items():
        for column in columns:
            db.execute(f"ALTER TABLE {table} ADD COLUMN {column}")
    db.commit()


def _damage_error(what: str, root: Path) -> CatalogDamagedError:
    return CatalogDamagedError(
        f"{what}; `reelbank bank action=repair bank={root}` rebuilds it from the segments"
    )
