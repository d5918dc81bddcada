"""Writes the catalog: rows of videos and segments, one transaction for each change.

Knows no tensors and no files. A row is on the disk when its method returns (synchronous=FULL,
memory/storage/database.py). Methods with a `db` parameter are one part of a larger transaction.
"""

import sqlite3
from collections.abc import Iterable, Sequence

from memory.storage import crash_points
from memory.storage.catalog import SEGMENT_COLUMNS, VIDEO_COLUMNS, SegmentRow, VideoRow, not_none
from memory.storage.database import Database, as_stored, raise_revision, row_sum
from memory.storage.segments import side_rows
from memory.storage.segments.side_rows import EMBEDDINGS, ENCODED, SideRow


class CatalogWriter:
    """Changes the rows of videos and segments."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put_video(self, row: VideoRow) -> None:
        """Record a video, or replace its row."""
        with self._database.transaction() as db:
            _put_video(db, row)
            crash_points.reached("video row")
        crash_points.reached("video commit")

    def add_segment(self, row: SegmentRow, further: Sequence[SideRow] = ()) -> None:
        """Acknowledge a segment: the next one, or a missing one. sqlite3.IntegrityError if it
        exists. further: its rows of further frame embedders."""
        with self._database.transaction() as db:
            _insert_segment(db, row)
            side_rows.add(db, EMBEDDINGS, further)
            if db.execute(
                "SELECT 1 FROM segments WHERE video_id = ? AND number > ?",
                (row.video_id, row.number),
            ).fetchone():
                _renumber(db, row.video_id)
            crash_points.reached("row")
        crash_points.reached("commit")

    def add_all(
        self,
        videos: Iterable[VideoRow],
        rows: Iterable[SegmentRow],
        further: Sequence[SideRow] = (),
        encoded: Sequence[SideRow] = (),
    ) -> None:
        """Add many rows, all or none. No segment may come before one that is there. encoded: of
        segments that were encoded on demand."""
        with self._database.transaction() as db:
            for video in videos:
                _put_video(db, video)
            for row in rows:
                _insert_segment(db, row)
            side_rows.add(db, EMBEDDINGS, further)
            side_rows.add(db, ENCODED, encoded)

    def replace_segments(self, rows: Sequence[SegmentRow]) -> None:
        """The same frames in other files: new rows in place of those with their numbers."""
        with self._database.transaction() as db:
            for row in rows:
                sql = "DELETE FROM segments WHERE video_id = ? AND number = ?"
                db.execute(sql, (row.video_id, row.number))
                _insert_segment(db, row)
            raise_revision(db)
            crash_points.reached("replaced rows")
        crash_points.reached("replaced rows commit")

    def remove(self, video_id: str, numbers: Sequence[int]) -> None:
        """Delete the rows of some segments of a video, which then counts as unfinished."""
        with self._database.transaction() as db:
            db.executemany(
                "DELETE FROM segments WHERE video_id = ? AND number = ?",
                [(video_id, number) for number in numbers],
            )
            side_rows.forget(db, video_id, numbers)
            db.execute(
                "UPDATE videos SET finished = 0, finished_sum = ? WHERE id = ?",
                (row_sum(video_id, 0), video_id),
            )
            _renumber(db, video_id)

    def seal_window(self, video_id: str, number: int, seal: str) -> None:
        """Record the seal of a segment's block in the recent window."""
        with self._database.transaction() as db:
            sql = "UPDATE segments SET window = ? WHERE video_id = ? AND number = ?"
            db.execute(sql, (seal, video_id, number))

    @staticmethod
    def forget_before(db: sqlite3.Connection, video: VideoRow) -> None:
        """Delete the rows of the segments before `video.pruned`, and record the pruning."""
        assert video.pruned is not None
        sql = "DELETE FROM segments WHERE video_id = ? AND number < ?"
        db.execute(sql, (video.info.video_id, video.pruned.first))
        _put_video(db, video)
        _renumber(db, video.info.video_id)

    @staticmethod
    def forget_video(db: sqlite3.Connection, video_id: str) -> None:
        """Delete the rows of a video and its segments."""
        db.execute("DELETE FROM segments WHERE video_id = ?", (video_id,))
        db.execute("DELETE FROM videos WHERE id = ?", (video_id,))
        raise_revision(db)


def _put_video(db: sqlite3.Connection, row: VideoRow) -> None:
    info = row.info
    values = (
        info.video_id,
        as_stored(info.path),
        info.duration,
        info.decoder,
        info.broke_at,
        info.note,
        row.interval,
    )
    pruned = (None, None) if row.pruned is None else (row.pruned.first, row.pruned.start)
    finished = int(row.finished)
    sums = row_sum(*values, *not_none(*pruned)), row_sum(info.video_id, finished)
    places = ", ".join("?" * 12)
    db.execute(
        f"INSERT OR REPLACE INTO videos ({VIDEO_COLUMNS}) VALUES ({places})",
        (*values, finished, sums[0], *pruned, sums[1]),
    )


def _insert_segment(db: sqlite3.Connection, row: SegmentRow) -> None:
    head = (row.video_id, row.number, row.start, row.end, row.frames)
    tail = (
        row.nbytes,
        row.checksum,
        row.times.astype("<f8").tobytes(),
        row.tokens.astype("<i4").tobytes(),
    )
    checksum = row_sum(*head, *tail, *not_none(row.wall))
    db.execute(
        f"INSERT INTO segments ({SEGMENT_COLUMNS}) VALUES ({', '.join('?' * 13)})",
        (*head, row.first, *tail, checksum, row.wall, row.window),
    )


def _renumber(db: sqlite3.Connection, video_id: str) -> None:
    """Count the frame ordinals of a video again, and raise the revision."""
    ordinal, values = 0, []
    sql = "SELECT number, frames FROM segments WHERE video_id = ? ORDER BY number"
    for number, frames in db.execute(sql, (video_id,)).fetchall():
        values.append((ordinal, video_id, number))
        ordinal += frames
    db.executemany(
        "UPDATE segments SET first_ordinal = ? WHERE video_id = ? AND number = ?", values
    )
    raise_revision(db)
