"""The catalog of a bank: which videos and segments exist. One SQLite file in WAL mode.

Knows no tensors and no files of segments. A segment exists when its row is committed, and only then: synchronous=FULL
means that the row is on the disk before `add_segment` returns. Safe to use from many threads and, for reading, from
many processes while one writes. On a read-only disk it can be read.

Segments are numbered 0, 1, 2, ... within a video. A number may be missing when a damaged segment was dropped; ordinals
of frames have no gaps. So whatever is not an addition at the end moves ordinals: it raises `revision`, and who has read
the catalog before starts again. Revision: SQLite's user_version, one for all videos.

A video may have lost its beginning on purpose (`prune`): segments below `Pruned.first` are neither there nor missing.
"""

import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from encoders.errors import UserError
from encoders.schema import VideoInfo
from memory.storage import crash_points
from memory.storage.atomic import sync_folder
from memory.storage.checksums import of_bytes
from memory.storage.os_errors import sentence
from memory.text import rows as text_rows

# sum: SQLite has no checksums of its own. It covers the row but for what is changed in place: finished, first_ordinal.
# times and tokens are there twice, here and in the segment files, so that planning a recall opens no file:
# 12 bytes a frame, 1 MB for a day at one frame a second
_TABLES = """
CREATE TABLE IF NOT EXISTS videos (
    id TEXT PRIMARY KEY, path TEXT NOT NULL, duration REAL NOT NULL, decoder TEXT NOT NULL, broke_at REAL,
    note TEXT NOT NULL, interval REAL NOT NULL, finished INTEGER NOT NULL, sum TEXT NOT NULL,
    pruned_first INTEGER, pruned_start REAL
);
CREATE TABLE IF NOT EXISTS segments (
    video_id TEXT NOT NULL, number INTEGER NOT NULL, start REAL NOT NULL, "end" REAL NOT NULL,
    frames INTEGER NOT NULL, first_ordinal INTEGER NOT NULL, bytes INTEGER NOT NULL, checksum TEXT NOT NULL,
    times BLOB NOT NULL, tokens BLOB NOT NULL, sum TEXT NOT NULL, wall REAL, PRIMARY KEY (video_id, number)
);
"""
# what catalogs did not have from the beginning; NULL in all rows that were written before
_LATER = {"videos": ("pruned_first INTEGER", "pruned_start REAL"), "segments": ("wall REAL",)}
# An overlap has two ends, and an index can bound only one: the length of the longest segment bounds the other
_INDEXES = """
CREATE INDEX IF NOT EXISTS segments_by_start ON segments (video_id, start);
CREATE INDEX IF NOT EXISTS segments_by_wall ON segments (video_id, wall);
CREATE INDEX IF NOT EXISTS segments_by_length ON segments ("end" - start);
"""
_VIDEO = "id, path, duration, decoder, broke_at, note, interval, finished, sum, pruned_first, pruned_start"
_SEGMENT = 'video_id, number, start, "end", frames, first_ordinal, bytes, checksum, times, tokens, sum, wall'
_SLACK_S = 1e-3  # of a Unix time a float64 keeps 2e-7 s


class CatalogDamagedError(UserError):
    """The catalog cannot be used; it can be rebuilt from the segment files."""


@dataclass(frozen=True, slots=True)
class Pruned:
    """The beginning of a video that was deleted on purpose."""

    first: int  # number of the first segment that was kept
    start: float  # seconds: where that begins


@dataclass(frozen=True, slots=True)
class VideoRow:
    """One video of a bank."""

    info: VideoInfo
    interval: float  # seconds between sampled frames
    finished: bool  # encoded to the end, or up to the end that was asked for
    pruned: Pruned | None = None  # None: nothing was


@dataclass(frozen=True, slots=True)
class Gap:
    """Segments that are missing between others, or before the first of those that were not pruned."""

    first: int  # number
    stop: int  # number after the last
    start: float  # seconds: where the segment before ends
    end: float  # seconds: where the next one begins

    @property
    def text(self) -> str:
        which = (
            f"segment {self.first} is"
            if self.stop == self.first + 1
            else f"segments {self.first} to {self.stop - 1} are"
        )
        return f"{which} missing: nothing is known of {self.start:.1f} s to {self.end:.1f} s"


@dataclass(frozen=True, slots=True, eq=False)
class SegmentRow:
    """One acknowledged segment."""

    video_id: str
    number: int
    start: float  # seconds
    end: float  # seconds
    frames: int
    first: int  # ordinal of the first frame
    nbytes: int  # size of the file
    # the file's seal: of its header, which has those of the data (memory/storage/segment_file.py)
    checksum: str
    times: np.ndarray  # [frames] float64 seconds
    tokens: np.ndarray  # [frames] int32: visual tokens of each frame
    wall: float | None = None  # Unix seconds of `start`, where known

    @property
    def stop(self) -> int:
        """Ordinal after the last frame."""
        return self.first + self.frames


class Catalog:
    """Rows of videos and segments."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # one connection for all threads; rows are small, commits take milliseconds
        self._lock = threading.RLock()
        fresh = not path.exists()
        try:
            self._db = _connect(path)
            self._db.execute("SELECT 1 FROM segments, videos LIMIT 1")
        except sqlite3.DatabaseError as error:
            raise self._damaged(error) from error
        self._inode = path.stat().st_ino
        if fresh:
            sync_folder(path.parent)
        self.text = text_rows.TextRows(self)

    def put_video(self, row: VideoRow) -> None:
        """Record a video, replacing what was recorded of it."""
        with self._transaction():
            self._put(row)
            crash_points.passed("video row")
        crash_points.passed("video commit")

    def videos(self) -> list[VideoRow]:
        """All videos, by id."""
        return [self._video(row) for row in self._all(f"SELECT {_VIDEO} FROM videos ORDER BY id")]

    def video(self, video_id: str) -> VideoRow | None:
        rows = self._all(f"SELECT {_VIDEO} FROM videos WHERE id = ?", video_id)
        return self._video(rows[0]) if rows else None

    def add_segment(self, row: SegmentRow) -> None:
        """Acknowledge a segment: the next one, or one that is missing. sqlite3.IntegrityError when it is there."""
        with self._transaction() as db:
            self._insert(row)
            if db.execute(
                "SELECT 1 FROM segments WHERE video_id = ? AND number > ?",
                (row.video_id, row.number),
            ).fetchone():
                self._renumber(row.video_id)
            crash_points.passed("row")
        crash_points.passed("commit")

    def add_all(self, videos: Iterable[VideoRow], rows: Iterable[SegmentRow]) -> None:
        """Fill an empty catalog, all or nothing."""
        with self._transaction():
            for video in videos:
                self._put(video)
            for row in rows:
                self._insert(row)

    def remove(self, video_id: str, numbers: Iterable[int]) -> None:
        """Forget some segments of a video, which then is not finished."""
        with self._transaction() as db:
            db.executemany(
                "DELETE FROM segments WHERE video_id = ? AND number = ?",
                [(video_id, n) for n in numbers],
            )
            db.execute("UPDATE videos SET finished = 0 WHERE id = ?", (video_id,))
            self._renumber(video_id)

    def prune(self, video: VideoRow) -> None:
        """Forget the segments before `video.pruned`, and keep with the video that it was done on purpose."""
        assert video.pruned is not None
        with self._transaction() as db:
            sql = "DELETE FROM segments WHERE video_id = ? AND number < ?"
            db.execute(sql, (video.info.video_id, video.pruned.first))
            self._put(video)
            self._renumber(video.info.video_id)
            text_rows.forget_before(db, video.info.video_id, video.pruned.start)
            crash_points.passed("rows")
        crash_points.passed("rows commit")

    def overlapping(
        self,
        video_id: str | None = None,
        *,
        start: float | None = None,
        end: float | None = None,
        since: float | None = None,
        until: float | None = None,
    ) -> list[SegmentRow]:
        """Segments of a video, or of all of them, that share time with start..end (seconds of video time) and with
        since..until (Unix seconds; segments whose wall-clock time nobody knows are in no such range). None: no bound.
        By video, then in time order. What is elsewhere is not read."""
        return [
            self._segment(row)
            for row in self._all(*self._overlapping(video_id, start, end, since, until))
        ]

    def segments(self, video_id: str, since: int = 0) -> list[SegmentRow]:
        """Segments of a video from number `since` on, in time order."""
        where = "WHERE video_id = ? AND number >= ? ORDER BY number"
        return [
            self._segment(row)
            for row in self._all(f"SELECT {_SEGMENT} FROM segments {where}", video_id, since)
        ]

    def news(self, video_id: str, since: int = 0) -> tuple[int, list[SegmentRow]]:
        """The revision and, of the same moment, the segments from number `since` on."""
        with self._lock:
            self._all("BEGIN")
            try:
                return self.revision(), self.segments(video_id, since)
            finally:
                self._db.rollback()

    def state(self) -> tuple[int, int]:
        """Another one after every change, whoever made it."""
        with self._lock:
            return int(self._all("PRAGMA data_version")[0][0]), self._db.total_changes

    def revision(self) -> int:
        """Changes with every change that is not an addition at the end."""
        return int(self._all("PRAGMA user_version")[0][0])

    def numbers(self, video_id: str) -> list[int]:
        """Numbers of the segments of a video, rising."""
        return [
            number
            for (number,) in self._all(
                "SELECT number FROM segments WHERE video_id = ? ORDER BY number", video_id
            )
        ]

    def nbytes(self) -> int:
        """Bytes of the files of all segments."""
        return int(self._all("SELECT total(bytes) FROM segments")[0][0])

    def gaps(self, video_id: str) -> list[Gap]:
        """Where segments are missing before the last one."""
        due, at = self._begin(video_id)
        ((count, last),) = self._all(
            "SELECT count(*), max(number) FROM segments WHERE video_id = ?", video_id
        )
        if count == 0 or last == due + count - 1:
            return []
        found = []
        rows = self._all(
            'SELECT number, start, "end" FROM segments WHERE video_id = ? ORDER BY number', video_id
        )
        for number, start, end in rows:
            if number > due:
                found.append(Gap(due, number, at, start))
            due, at = number + 1, end
        return found

    def segment(self, video_id: str, number: int) -> SegmentRow | None:
        rows = self._all(
            f"SELECT {_SEGMENT} FROM segments WHERE video_id = ? AND number = ?", video_id, number
        )
        return self._segment(rows[0]) if rows else None

    def next(self, video_id: str) -> tuple[int, float]:
        """Number of the segment that comes after the last one, and the second at which that ended."""
        last = self.last(video_id)
        return self._begin(video_id) if last is None else (last.number + 1, last.end)

    def began(self, video_id: str, number: int) -> float | None:
        """Unix seconds of second 0 of the session that segment `number` is or was of, as its neighbours tell, the one before
        it first. None where they do not know, or where there is none."""
        for where in ("number < ? ORDER BY number DESC", "number >= ? ORDER BY number"):
            found = self._all(
                f"SELECT {_SEGMENT} FROM segments WHERE video_id = ? AND {where} LIMIT 1",
                video_id,
                number,
            )
            if found:
                row = self._segment(found[0])
                # whoever says when a video began says it in milliseconds: so it comes back bit by bit
                return None if row.wall is None else round(row.wall - row.start, 3)
        return None

    def walls(self) -> dict[str, tuple[float, float]]:
        """Unix seconds of the first and the last moment of every video that knows when it was."""
        sql = 'SELECT video_id, min(wall), max(wall + "end" - start) FROM segments WHERE wall IS NOT NULL GROUP BY video_id'
        return {video_id: (first, last) for video_id, first, last in self._all(sql)}

    def last(self, video_id: str) -> SegmentRow | None:
        """The newest segment of a video."""
        where = "WHERE video_id = ? ORDER BY number DESC LIMIT 1"
        rows = self._all(f"SELECT {_SEGMENT} FROM segments {where}", video_id)
        return self._segment(rows[0]) if rows else None

    def newest(self, video_id: str, frames: int, before: int | None = None) -> list[SegmentRow]:
        """The last segments, in time order, that together hold at least `frames` frames, or all there are; at least one
        where there is one. before: only segments below this number."""
        below = (1 << 62) if before is None else before
        where = "WHERE video_id = ? AND number < ? ORDER BY number DESC LIMIT 1"
        found = self._all(f"SELECT {_SEGMENT} FROM segments {where}", video_id, below)
        if not found:
            return []
        last = self._segment(found[0])
        where = "WHERE video_id = ? AND number < ? AND (first_ordinal + frames > ? OR number = ?) ORDER BY number"
        rows = self._all(
            f"SELECT {_SEGMENT} FROM segments {where}",
            video_id,
            below,
            last.stop - frames,
            last.number,
        )
        return [self._segment(row) for row in rows]

    def all_segments(self) -> Iterator[SegmentRow]:
        """Every segment of every video, one video in memory at a time."""
        for (video_id,) in self._all("SELECT DISTINCT video_id FROM segments ORDER BY video_id"):
            yield from self.segments(video_id)

    def drop(self, video_id: str) -> None:
        """Forget a video and its segments."""
        with self._transaction() as db:
            db.execute("DELETE FROM segments WHERE video_id = ?", (video_id,))
            db.execute("DELETE FROM videos WHERE id = ?", (video_id,))
            text_rows.forget_video(db, video_id)
            self._revise()

    def damage(self) -> list[str]:
        """What is wrong with the file itself or with a row."""
        try:
            found = [text for (text,) in self._all("PRAGMA integrity_check") if text != "ok"]
            self.videos()
            ordinals: dict[str, int] = {}
            for row in self.all_segments():
                if row.first != ordinals.get(row.video_id, 0):
                    found.append(
                        f"segment {row.number} of video {row.video_id} does not count its frames from where it should"
                    )
                ordinals[row.video_id] = row.stop
            return found + self.text.damage()
        except UserError as error:
            return [str(error)]

    @property
    def replaced(self) -> bool:
        """Whether another file, or none, has the name by now: what is written here would be lost."""
        try:
            return self._path.stat().st_ino != self._inode
        except FileNotFoundError:
            return True

    def close(self) -> None:
        with self._lock:
            self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """For whoever keeps rows of its own here: all of it is committed on the way out, or none."""
        with self._transaction() as db:
            yield db

    def all(self, sql: str, *values: str | float) -> Sequence[tuple]:
        """The rows of a query. CatalogDamagedError when the file cannot be used."""
        return self._all(sql, *values)

    def row_damaged(self) -> "CatalogDamagedError":
        """What is raised about a row that does not fit its sum."""
        return _damaged(
            f"catalog {self._path} has a row that is not as it was written", self._path.parent
        )

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._db:  # the connection commits on the way out, or rolls back
            yield self._db

    def _video(self, row: tuple) -> VideoRow:
        video_id, path, duration, decoder, broke_at, note, interval, finished, written, *pruned = (
            row
        )
        self._compare(written, *row[:7], *_known(*pruned))
        info = VideoInfo(video_id, path, duration, decoder, broke_at, note)
        return VideoRow(
            info, interval, bool(finished), None if pruned[0] is None else Pruned(*pruned)
        )

    def _segment(self, row: tuple) -> SegmentRow:
        (
            video_id,
            number,
            start,
            end,
            frames,
            first,
            nbytes,
            checksum,
            times,
            tokens,
            written,
            wall,
        ) = row
        self._compare(written, *row[:5], *row[6:10], *_known(wall))
        arrays = np.frombuffer(times, "<f8"), np.frombuffer(tokens, "<i4")
        return SegmentRow(
            video_id, number, start, end, frames, first, nbytes, checksum, *arrays, wall
        )

    def _compare(self, written: str, *values: str | float | bytes | None) -> None:
        if _sum(*values) != written:
            raise self.row_damaged()

    def _put(self, row: VideoRow) -> None:
        info = row.info
        values = (
            info.video_id,
            info.path,
            info.duration,
            info.decoder,
            info.broke_at,
            info.note,
            row.interval,
        )
        pruned = (None, None) if row.pruned is None else (row.pruned.first, row.pruned.start)
        sql = f"INSERT OR REPLACE INTO videos ({_VIDEO}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        self._db.execute(
            sql, (*values, int(row.finished), _sum(*values, *_known(*pruned)), *pruned)
        )

    def _insert(self, row: SegmentRow) -> None:
        head = (row.video_id, row.number, row.start, row.end, row.frames)
        tail = (
            row.nbytes,
            row.checksum,
            row.times.astype("<f8").tobytes(),
            row.tokens.astype("<i4").tobytes(),
        )
        sql = f"INSERT INTO segments ({_SEGMENT}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        self._db.execute(
            sql, (*head, row.first, *tail, _sum(*head, *tail, *_known(row.wall)), row.wall)
        )

    def _overlapping(
        self,
        video_id: str | None,
        start: float | None,
        end: float | None,
        since: float | None,
        until: float | None,
    ) -> tuple[Any, ...]:
        """The query, and its values."""
        # by id in any case: both indexes begin with it
        where, values = ["video_id IN (SELECT id FROM videos)"], list[str | float]()
        if video_id is not None:
            where, values = ["video_id = ?"], [video_id]
        for column, low, high in (("start", start, end), ("wall", since, until)):
            if low is not None:
                where += [f"{column} > ?", f'{column} + ("end" - start) > ?']
                values += [low - self._longest() - _SLACK_S, low]
            if high is not None:
                where.append(f"{column} < ?")
                values.append(high)
        return (
            f"SELECT {_SEGMENT} FROM segments WHERE {' AND '.join(where)} ORDER BY video_id, number",
            *values,
        )

    def _longest(self) -> float:
        """Seconds of the longest segment."""
        found = self._all('SELECT "end" - start FROM segments ORDER BY "end" - start DESC LIMIT 1')
        return float(found[0][0]) if found else 0.0

    def _begin(self, video_id: str) -> tuple[int, float]:
        """Number of the first segment that a video should have, and the second at which it begins."""
        video = self.video(video_id)
        return (
            (0, 0.0)
            if video is None or video.pruned is None
            else (video.pruned.first, video.pruned.start)
        )

    def _renumber(self, video_id: str) -> None:
        """Count the ordinals of a video anew."""
        ordinal, values = 0, []
        sql = "SELECT number, frames FROM segments WHERE video_id = ? ORDER BY number"
        for number, frames in self._db.execute(sql, (video_id,)).fetchall():
            values.append((ordinal, video_id, number))
            ordinal += frames
        self._db.executemany(
            "UPDATE segments SET first_ordinal = ? WHERE video_id = ? AND number = ?", values
        )
        self._revise()

    def _revise(self) -> None:
        (revision,) = self._db.execute("PRAGMA user_version").fetchone()
        self._db.execute(f"PRAGMA user_version = {revision + 1}")  # part of the transaction

    def _all(self, sql: str, *values: str | float) -> Sequence[tuple]:
        try:
            with self._lock:
                # damage may show at the first row or at the last
                return self._db.execute(sql, values).fetchall()
        except sqlite3.DatabaseError as error:
            raise self._damaged(error) from error

    def _damaged(self, error: sqlite3.DatabaseError) -> UserError:
        # full, locked, no access, a read error: not the bytes' fault
        if isinstance(error, sqlite3.OperationalError):
            return UserError(sentence(self._path.parent, error))
        return _damaged(f"catalog {self._path} cannot be used ({error})", self._path.parent)


def _connect(path: Path) -> sqlite3.Connection:
    if path.exists() and not os.access(path.parent, os.W_OK):
        # A read-only disk: SQLite may not put its shared memory beside the file. Nobody writes, so it needs none, unless a
        # log is there that was never taken in.
        log = path.with_name(path.name + "-wal")
        still = "" if log.exists() and log.stat().st_size else "&immutable=1"
        db = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=ro{still}", uri=True, check_same_thread=False
        )
        # a temporary view of that name is what queries find first
        for table, columns in _lacking(db).items():
            more = ", ".join(f"NULL AS {column.split()[0]}" for column in columns)
            db.execute(f"CREATE TEMP VIEW {table} AS SELECT *, {more} FROM main.{table}")
        return db
    db = sqlite3.connect(path, timeout=30.0, check_same_thread=False)
    db.execute("PRAGMA journal_mode = WAL")  # readers go on while a row is committed
    db.execute("PRAGMA synchronous = FULL")  # NORMAL may lose the last rows at a power cut: law 4
    db.executescript(_TABLES)
    if _lacking(db):
        _bring_up_to_date(db)
    db.executescript(_INDEXES)
    return db


def _lacking(db: sqlite3.Connection) -> dict[str, list[str]]:
    """Columns that an older catalog does not have, by table."""
    found = {}
    for table, columns in _LATER.items():
        there = {row[1] for row in db.execute(f"PRAGMA table_info({table})")}
        missing = [column for column in columns if column.split()[0] not in there]
        if there and missing:
            found[table] = missing
    return found


def _bring_up_to_date(db: sqlite3.Connection) -> None:
    db.execute("BEGIN IMMEDIATE")  # of two that open the same old catalog one finds it done
    for table, columns in _lacking(db).items():
        for column in columns:
            db.execute(f"ALTER TABLE {table} ADD COLUMN {column}")
    db.commit()


def _known(*values: float | None) -> tuple[float, ...]:
    """Without None: what a row says beyond what older catalogs have is in its sum only where it says something."""
    return tuple(value for value in values if value is not None)


def _damaged(what: str, root: Path) -> CatalogDamagedError:
    return CatalogDamagedError(
        f"{what}; `reelbank bank action=repair bank={root}` rebuilds it from the segments"
    )


def _sum(*values: str | float | bytes | None) -> str:
    return of_bytes(repr(values).encode())
