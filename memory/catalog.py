"""The catalog of a bank: which videos and segments exist. One SQLite file in WAL mode.

Knows no tensors and no files of segments. A segment exists when its row is committed, and only then: synchronous=FULL
means that the row is on the disk before `add_segment` returns. Safe to use from many threads and, for reading, from
many processes while one writes.
"""

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from encoders.errors import UserError
from encoders.schema import VideoInfo
from memory.atomic import sync_folder

# times and tokens are there twice, here and in the segment files, so that planning a recall opens no file:
# 12 bytes a frame, 1 MB for a day at one frame a second
_TABLES = """
CREATE TABLE IF NOT EXISTS videos (
    id TEXT PRIMARY KEY, path TEXT NOT NULL, duration REAL NOT NULL, decoder TEXT NOT NULL, broke_at REAL,
    note TEXT NOT NULL, interval REAL NOT NULL, finished INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS segments (
    video_id TEXT NOT NULL, number INTEGER NOT NULL, start REAL NOT NULL, "end" REAL NOT NULL,
    frames INTEGER NOT NULL, first_ordinal INTEGER NOT NULL, bytes INTEGER NOT NULL, checksum TEXT NOT NULL,
    times BLOB NOT NULL, tokens BLOB NOT NULL, PRIMARY KEY (video_id, number)
);
"""
_VIDEO = "id, path, duration, decoder, broke_at, note, interval, finished"
_SEGMENT = 'video_id, number, start, "end", frames, first_ordinal, bytes, checksum, times, tokens'


@dataclass(frozen=True, slots=True)
class VideoRow:
    """One video of a bank."""

    info: VideoInfo
    interval: float  # seconds between sampled frames
    finished: bool  # encoded to the end, or up to the end that was asked for


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
    checksum: str
    times: np.ndarray  # [frames] float64 seconds
    tokens: np.ndarray  # [frames] int32: visual tokens of each frame

    @property
    def stop(self) -> int:
        """Ordinal after the last frame."""
        return self.first + self.frames


class Catalog:
    """Rows of videos and segments."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.RLock()  # one connection for all threads; rows are small, commits take milliseconds
        fresh = not path.exists()
        try:
            self._db = sqlite3.connect(path, timeout=30.0, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode = WAL")  # readers go on while a row is committed
            self._db.execute("PRAGMA synchronous = FULL")  # NORMAL may lose the last rows at a power cut: law 4
            self._db.executescript(_TABLES)
        except sqlite3.DatabaseError as error:
            raise UserError(f"catalog {path} cannot be used ({error}); restore it or use another bank=DIR") from error
        if fresh:
            sync_folder(path.parent)

    def put_video(self, row: VideoRow) -> None:
        """Record a video, replacing what was recorded of it."""
        info = row.info
        values = (info.video_id, info.path, info.duration, info.decoder, info.broke_at, info.note)
        with self._transaction() as db:
            db.execute(
                f"INSERT OR REPLACE INTO videos ({_VIDEO}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (*values, row.interval, int(row.finished)),
            )

    def videos(self) -> list[VideoRow]:
        """All videos, by id."""
        return [_video(row) for row in self._all(f"SELECT {_VIDEO} FROM videos ORDER BY id")]

    def video(self, video_id: str) -> VideoRow | None:
        rows = self._all(f"SELECT {_VIDEO} FROM videos WHERE id = ?", video_id)
        return _video(rows[0]) if rows else None

    def add_segment(self, row: SegmentRow) -> None:
        """Acknowledge a segment. sqlite3.IntegrityError when it was acknowledged before."""
        values = (row.video_id, row.number, row.start, row.end, row.frames, row.first, row.nbytes, row.checksum)
        blobs = (row.times.astype("<f8").tobytes(), row.tokens.astype("<i4").tobytes())
        with self._transaction() as db:
            db.execute(f"INSERT INTO segments ({_SEGMENT}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", (*values, *blobs))

    def segments(self, video_id: str, since: int = 0) -> list[SegmentRow]:
        """Segments of a video from number `since` on, in time order."""
        where = "WHERE video_id = ? AND number >= ? ORDER BY number"
        return [_segment(row) for row in self._all(f"SELECT {_SEGMENT} FROM segments {where}", video_id, since)]

    def segment(self, video_id: str, number: int) -> SegmentRow | None:
        rows = self._all(f"SELECT {_SEGMENT} FROM segments WHERE video_id = ? AND number = ?", video_id, number)
        return _segment(rows[0]) if rows else None

    def last(self, video_id: str) -> SegmentRow | None:
        """The newest segment of a video."""
        where = "WHERE video_id = ? ORDER BY number DESC LIMIT 1"
        rows = self._all(f"SELECT {_SEGMENT} FROM segments {where}", video_id)
        return _segment(rows[0]) if rows else None

    def newest(self, video_id: str, frames: int) -> list[SegmentRow]:
        """The last segments, in time order, that together hold at least `frames` frames, or all there are; at least one
        where there is one."""
        last = self.last(video_id)
        if last is None:
            return []
        where = "WHERE video_id = ? AND (first_ordinal + frames > ? OR number = ?) ORDER BY number"
        found = self._all(f"SELECT {_SEGMENT} FROM segments {where}", video_id, last.stop - frames, last.number)
        return [_segment(row) for row in found]

    def all_segments(self) -> Iterator[SegmentRow]:
        """Every segment of every video, one video in memory at a time."""
        for (video_id,) in self._all("SELECT DISTINCT video_id FROM segments ORDER BY video_id"):
            yield from self.segments(video_id)

    def drop(self, video_id: str) -> None:
        """Forget a video and its segments."""
        with self._transaction() as db:
            db.execute("DELETE FROM segments WHERE video_id = ?", (video_id,))
            db.execute("DELETE FROM videos WHERE id = ?", (video_id,))

    def damage(self) -> list[str]:
        """What SQLite finds wrong with the file itself."""
        try:
            return [text for (text,) in self._all("PRAGMA quick_check") if text != "ok"]
        except sqlite3.DatabaseError as error:
            return [str(error)]

    def close(self) -> None:
        with self._lock:
            self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._db:  # the connection commits on the way out, or rolls back
            yield self._db

    def _all(self, sql: str, *values: str | int) -> Sequence[tuple]:
        with self._lock:
            return self._db.execute(sql, values).fetchall()


def _video(row: tuple) -> VideoRow:
    video_id, path, duration, decoder, broke_at, note, interval, finished = row
    return VideoRow(VideoInfo(video_id, path, duration, decoder, broke_at, note), interval, bool(finished))


def _segment(row: tuple) -> SegmentRow:
    video_id, number, start, end, frames, first, nbytes, checksum, times, tokens = row
    arrays = np.frombuffer(times, "<f8"), np.frombuffer(tokens, "<i4")
    return SegmentRow(video_id, number, start, end, frames, first, nbytes, checksum, *arrays)
