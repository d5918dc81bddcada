"""The catalog of a bank: which videos and segments exist. One SQLite file in WAL mode.

Knows no tensors and no files of segments. A segment exists when its row is committed, and only then: synchronous=FULL
means that the row is on the disk before `add_segment` returns. Safe to use from many threads and, for reading, from
many processes while one writes. On a read-only disk it can be read.

Segments are numbered 0, 1, 2, ... within a video. A number may be missing when a damaged segment was dropped; ordinals
of frames have no gaps. So whatever is not an addition at the end moves ordinals: it raises `revision`, and who has read
the catalog before starts again. Revision: SQLite's user_version, one for all videos.

A video may have lost its beginning on purpose (`prune`): segments below `Pruned.first` are neither there nor missing.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from encoders.schema import VideoInfo
from memory.storage import crash_points
from memory.storage.database import Database, raise_revision, row_sum

_VIDEO = "id, path, duration, decoder, broke_at, note, interval, finished, sum, pruned_first, pruned_start"
_SEGMENT = 'video_id, number, start, "end", frames, first_ordinal, bytes, checksum, times, tokens, sum, wall'
_SLACK_S = 1e-3  # of a Unix time a float64 keeps 2e-7 s


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

    def __init__(self, database: Database) -> None:
        self._database = database

    def put_video(self, row: VideoRow) -> None:
        """Record a video, replacing what was recorded of it."""
        with self._database.transaction() as db:
            self._put(db, row)
            crash_points.reached("video row")
        crash_points.reached("video commit")

    def videos(self) -> list[VideoRow]:
        """All videos, by id."""
        return [
            self._video(row)
            for row in self._database.rows(f"SELECT {_VIDEO} FROM videos ORDER BY id")
        ]

    def video(self, video_id: str) -> VideoRow | None:
        rows = self._database.rows(f"SELECT {_VIDEO} FROM videos WHERE id = ?", video_id)
        return self._video(rows[0]) if rows else None

    def add_segment(self, row: SegmentRow) -> None:
        """Acknowledge a segment: the next one, or one that is missing. sqlite3.IntegrityError when it is there."""
        with self._database.transaction() as db:
            self._insert(db, row)
            if db.execute(
                "SELECT 1 FROM segments WHERE video_id = ? AND number > ?",
                (row.video_id, row.number),
            ).fetchone():
                self._renumber(db, row.video_id)
            crash_points.reached("row")
        crash_points.reached("commit")

    def add_all(self, videos: Iterable[VideoRow], rows: Iterable[SegmentRow]) -> None:
        """Fill an empty catalog, all or nothing."""
        with self._database.transaction() as db:
            for video in videos:
                self._put(db, video)
            for row in rows:
                self._insert(db, row)

    def remove(self, video_id: str, numbers: Iterable[int]) -> None:
        """Forget some segments of a video, which then is not finished."""
        with self._database.transaction() as db:
            db.executemany(
                "DELETE FROM segments WHERE video_id = ? AND number = ?",
                [(video_id, n) for n in numbers],
            )
            db.execute("UPDATE videos SET finished = 0 WHERE id = ?", (video_id,))
            self._renumber(db, video_id)

    def forget_before(self, db: sqlite3.Connection, video: VideoRow) -> None:
        """Forget the segments before `video.pruned`, and record that this was on purpose. Part of
        a transaction."""
        assert video.pruned is not None
        sql = "DELETE FROM segments WHERE video_id = ? AND number < ?"
        db.execute(sql, (video.info.video_id, video.pruned.first))
        self._put(db, video)
        self._renumber(db, video.info.video_id)

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
            for row in self._database.rows(*self._overlapping(video_id, start, end, since, until))
        ]

    def segments(self, video_id: str, since: int = 0) -> list[SegmentRow]:
        """Segments of a video from number `since` on, in time order."""
        where = "WHERE video_id = ? AND number >= ? ORDER BY number"
        return [
            self._segment(row)
            for row in self._database.rows(
                f"SELECT {_SEGMENT} FROM segments {where}", video_id, since
            )
        ]

    def segments_since(self, video_id: str, since: int = 0) -> tuple[int, list[SegmentRow]]:
        """The revision and the segments from number `since` on, both of the same moment."""
        with self._database.snapshot():
            return self._database.revision(), self.segments(video_id, since)

    def numbers(self, video_id: str) -> list[int]:
        """Numbers of the segments of a video, rising."""
        return [
            number
            for (number,) in self._database.rows(
                "SELECT number FROM segments WHERE video_id = ? ORDER BY number", video_id
            )
        ]

    def nbytes(self) -> int:
        """Bytes of the files of all segments."""
        return int(self._database.rows("SELECT total(bytes) FROM segments")[0][0])

    def gaps(self, video_id: str) -> list[Gap]:
        """Where segments are missing before the last one."""
        due, at = self._begin(video_id)
        ((count, last),) = self._database.rows(
            "SELECT count(*), max(number) FROM segments WHERE video_id = ?", video_id
        )
        if count == 0 or last == due + count - 1:
            return []
        found = []
        rows = self._database.rows(
            'SELECT number, start, "end" FROM segments WHERE video_id = ? ORDER BY number', video_id
        )
        for number, start, end in rows:
            if number > due:
                found.append(Gap(due, number, at, start))
            due, at = number + 1, end
        return found

    def segment(self, video_id: str, number: int) -> SegmentRow | None:
        rows = self._database.rows(
            f"SELECT {_SEGMENT} FROM segments WHERE video_id = ? AND number = ?", video_id, number
        )
        return self._segment(rows[0]) if rows else None

    def next(self, video_id: str) -> tuple[int, float]:
        """Number of the segment that comes after the last one, and the second at which that ended."""
        last = self.last(video_id)
        return self._begin(video_id) if last is None else (last.number + 1, last.end)

    def session_start(self, video_id: str, number: int) -> float | None:
        """Unix seconds of second 0 of the session that segment `number` is or was of, as its neighbours tell, the one before
        it first. None where they do not know, or where there is none."""
        for where in ("number < ? ORDER BY number DESC", "number >= ? ORDER BY number"):
            found = self._database.rows(
                f"SELECT {_SEGMENT} FROM segments WHERE video_id = ? AND {where} LIMIT 1",
                video_id,
                number,
            )
            if found:
                row = self._segment(found[0])
                # whoever says when a video began says it in milliseconds: so it comes back bit by bit
                return None if row.wall is None else round(row.wall - row.start, 3)
        return None

    def wall_spans(self) -> dict[str, tuple[float, float]]:
        """Unix seconds of the first and the last moment of every video that knows when it was."""
        sql = 'SELECT video_id, min(wall), max(wall + "end" - start) FROM segments WHERE wall IS NOT NULL GROUP BY video_id'
        return {video_id: (first, last) for video_id, first, last in self._database.rows(sql)}

    def last(self, video_id: str) -> SegmentRow | None:
        """The newest segment of a video."""
        where = "WHERE video_id = ? ORDER BY number DESC LIMIT 1"
        rows = self._database.rows(f"SELECT {_SEGMENT} FROM segments {where}", video_id)
        return self._segment(rows[0]) if rows else None

    def newest(self, video_id: str, frames: int, before: int | None = None) -> list[SegmentRow]:
        """The last segments, in time order, that together hold at least `frames` frames, or all there are; at least one
        where there is one. before: only segments below this number."""
        below = (1 << 62) if before is None else before
        where = "WHERE video_id = ? AND number < ? ORDER BY number DESC LIMIT 1"
        found = self._database.rows(f"SELECT {_SEGMENT} FROM segments {where}", video_id, below)
        if not found:
            return []
        last = self._segment(found[0])
        where = "WHERE video_id = ? AND number < ? AND (first_ordinal + frames > ? OR number = ?) ORDER BY number"
        rows = self._database.rows(
            f"SELECT {_SEGMENT} FROM segments {where}",
            video_id,
            below,
            last.stop - frames,
            last.number,
        )
        return [self._segment(row) for row in rows]

    def all_segments(self) -> Iterator[SegmentRow]:
        """Every segment of every video, one video in memory at a time."""
        for (video_id,) in self._database.rows(
            "SELECT DISTINCT video_id FROM segments ORDER BY video_id"
        ):
            yield from self.segments(video_id)

    def forget_video(self, db: sqlite3.Connection, video_id: str) -> None:
        """Forget a video and its segments. Part of a transaction."""
        db.execute("DELETE FROM segments WHERE video_id = ?", (video_id,))
        db.execute("DELETE FROM videos WHERE id = ?", (video_id,))
        raise_revision(db)

    def damage(self) -> list[str]:
        """What is wrong with the numbering of frames. Raises CatalogDamagedError for a row that
        does not match its sum."""
        self.videos()
        problems = []
        ordinals: dict[str, int] = {}
        for row in self.all_segments():
            if row.first != ordinals.get(row.video_id, 0):
                problems.append(
                    f"segment {row.number} of video {row.video_id} does not count its frames from where it should"
                )
            ordinals[row.video_id] = row.stop
        return problems

    def _video(self, row: tuple) -> VideoRow:
        video_id, path, duration, decoder, broke_at, note, interval, finished, written, *pruned = (
            row
        )
        self._compare(written, *row[:7], *_not_none(*pruned))
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
        self._compare(written, *row[:5], *row[6:10], *_not_none(wall))
        arrays = np.frombuffer(times, "<f8"), np.frombuffer(tokens, "<i4")
        return SegmentRow(
            video_id, number, start, end, frames, first, nbytes, checksum, *arrays, wall
        )

    def _compare(self, written: str, *values: str | float | bytes | None) -> None:
        if row_sum(*values) != written:
            raise self._database.row_error()

    def _put(self, db: sqlite3.Connection, row: VideoRow) -> None:
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
        db.execute(
            sql, (*values, int(row.finished), row_sum(*values, *_not_none(*pruned)), *pruned)
        )

    def _insert(self, db: sqlite3.Connection, row: SegmentRow) -> None:
        head = (row.video_id, row.number, row.start, row.end, row.frames)
        tail = (
            row.nbytes,
            row.checksum,
            row.times.astype("<f8").tobytes(),
            row.tokens.astype("<i4").tobytes(),
        )
        sql = f"INSERT INTO segments ({_SEGMENT}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        db.execute(
            sql, (*head, row.first, *tail, row_sum(*head, *tail, *_not_none(row.wall)), row.wall)
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
        found = self._database.rows(
            'SELECT "end" - start FROM segments ORDER BY "end" - start DESC LIMIT 1'
        )
        return float(found[0][0]) if found else 0.0

    def _begin(self, video_id: str) -> tuple[int, float]:
        """Number of the first segment that a video should have, and the second at which it begins."""
        video = self.video(video_id)
        return (
            (0, 0.0)
            if video is None or video.pruned is None
            else (video.pruned.first, video.pruned.start)
        )

    def _renumber(self, db: sqlite3.Connection, video_id: str) -> None:
        """Count the ordinals of a video anew."""
        ordinal, values = 0, []
        sql = "SELECT number, frames FROM segments WHERE video_id = ? ORDER BY number"
        for number, frames in db.execute(sql, (video_id,)).fetchall():
            values.append((ordinal, video_id, number))
            ordinal += frames
        db.executemany(
            "UPDATE segments SET first_ordinal = ? WHERE video_id = ? AND number = ?", values
        )
        raise_revision(db)


def _not_none(*values: float | None) -> tuple[float, ...]:
    """Without None: what a row says beyond what older catalogs have is in its sum only where it says something."""
    return tuple(value for value in values if value is not None)
