"""Which segments have rows of which further frame embedder, in a table of the bank's catalog.

Knows rows of SQLite alone; no files. A row names the seal of the segment: rows of a segment that
was encoded again with other bytes do not count. The table exists in banks that have, or had, such
rows; an older Reelbank does not look at it.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from memory.storage.database import Database, raise_revision, row_sum

_TABLE = """CREATE TABLE IF NOT EXISTS embeddings (
    video_id TEXT NOT NULL, embedder TEXT NOT NULL, number INTEGER NOT NULL, segment TEXT NOT NULL,
    bytes INTEGER NOT NULL, seal TEXT NOT NULL, sum TEXT NOT NULL,
    PRIMARY KEY (video_id, embedder, number)
)"""
_COLUMNS = "video_id, embedder, number, segment, bytes, seal"
_EXISTS = "SELECT 1 FROM sqlite_master WHERE name = 'embeddings'"
# an older Reelbank may have dropped the segment, or encoded it again
_OUTDATED = """NOT EXISTS (SELECT 1 FROM segments WHERE segments.video_id = embeddings.video_id
    AND segments.number = embeddings.number AND segments.checksum = embeddings.segment)"""


@dataclass(frozen=True, slots=True)
class EmbeddingRow:
    """The rows of one segment by one embedder."""

    video_id: str
    embedder: str  # key
    number: int  # of the segment
    segment: str  # seal of the segment
    nbytes: int  # of the file
    seal: str  # of the file


@dataclass(frozen=True, slots=True)
class EmbedderCount:
    """How much of a video a further embedder has embedded."""

    embedder: str  # key
    segments: int
    frames: int
    nbytes: int


class EmbeddingRows:
    """Reads and writes the table."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @property
    def is_empty(self) -> bool:
        """True if the bank never had rows of a further embedder."""
        return not self._database.rows(_EXISTS)

    def row(self, video_id: str, embedder: str, number: int) -> EmbeddingRow | None:
        """None if that embedder has no rows of the segment."""
        found = self._rows(
            "WHERE video_id = ? AND embedder = ? AND number = ?", video_id, embedder, number
        )
        return found[0] if found else None

    def rows(self, video_id: str | None = None) -> list[EmbeddingRow]:
        """Rows of one video or of all, by video, embedder and number. CatalogDamagedError."""
        order = "ORDER BY video_id, embedder, number"
        if video_id is None:
            return self._rows(order)
        return self._rows(f"WHERE video_id = ? {order}", video_id)

    def counts(self, video_id: str | None = None) -> list[EmbedderCount]:
        """One for each embedder of a video, or of the bank, by key."""
        if self.is_empty:
            return []
        where, values = ("", ()) if video_id is None else ("WHERE e.video_id = ?", (video_id,))
        sql = f"""SELECT embedder, count(*), total(frames), total(e.bytes) FROM embeddings AS e
            JOIN segments AS s ON s.video_id = e.video_id AND s.number = e.number
            AND s.checksum = e.segment {where} GROUP BY embedder ORDER BY embedder"""
        return [
            EmbedderCount(embedder, segments, int(frames), int(nbytes))
            for embedder, segments, frames, nbytes in self._database.rows(sql, *values)
        ]

    def missing(self, video_id: str, embedder: str) -> list[int]:
        """Numbers of the segments that have no rows of an embedder, ascending."""
        if self.is_empty:
            sql = "SELECT number FROM segments WHERE video_id = ? ORDER BY number"
            return [number for (number,) in self._database.rows(sql, video_id)]
        sql = """SELECT s.number FROM segments AS s LEFT JOIN embeddings AS e
            ON e.video_id = s.video_id AND e.number = s.number AND e.segment = s.checksum
            AND e.embedder = ? WHERE s.video_id = ? AND e.number IS NULL ORDER BY s.number"""
        return [number for (number,) in self._database.rows(sql, embedder, video_id)]

    def nbytes(self, video_id: str) -> dict[int, int]:
        """Bytes of all files of each segment, by its number."""
        if self.is_empty:
            return {}
        sql = "SELECT number, total(bytes) FROM embeddings WHERE video_id = ? GROUP BY number"
        return {number: int(nbytes) for number, nbytes in self._database.rows(sql, video_id)}

    def add(self, row: EmbeddingRow) -> bool:
        """Acknowledge rows of a stored segment. True if the embedder now has rows of the whole
        video: then readers that have the video in memory read it again."""
        with self._database.transaction() as db:
            add(db, [row])
            sql = """SELECT 1 FROM segments AS s WHERE video_id = ? AND NOT EXISTS (
                SELECT 1 FROM embeddings AS e WHERE e.video_id = s.video_id
                AND e.number = s.number AND e.segment = s.checksum AND e.embedder = ?) LIMIT 1"""
            is_whole = db.execute(sql, (row.video_id, row.embedder)).fetchone() is None
            if is_whole:
                raise_revision(db)
        return is_whole

    def publish(self) -> None:
        """Make readers that have videos in memory read them again."""
        with self._database.transaction() as db:
            raise_revision(db)

    def remove(self, rows: Iterable[EmbeddingRow]) -> None:
        """Delete rows whose files are damaged."""
        names = [(row.video_id, row.embedder, row.number) for row in rows]
        if not names:  # of a bank without the table, too
            return
        with self._database.transaction() as db:
            db.executemany(
                "DELETE FROM embeddings WHERE video_id = ? AND embedder = ? AND number = ?", names
            )

    def remove_outdated(self) -> None:
        """Delete rows of segments that are gone or were encoded again."""
        if not self.is_empty and self._database.rows(
            f"SELECT 1 FROM embeddings WHERE {_OUTDATED} LIMIT 1"
        ):
            with self._database.transaction() as db:
                db.execute(f"DELETE FROM embeddings WHERE {_OUTDATED}")

    def _rows(self, where: str, *values: str | float) -> list[EmbeddingRow]:
        if self.is_empty:
            return []
        found = self._database.rows(f"SELECT {_COLUMNS}, sum FROM embeddings {where}", *values)
        for *columns, checksum in found:
            if row_sum(*columns) != checksum:
                raise self._database.row_error()
        return [EmbeddingRow(*columns) for *columns, _ in found]


def add(db: sqlite3.Connection, rows: Sequence[EmbeddingRow]) -> None:
    """Insert rows, or replace those of the same segments; part of a transaction."""
    if not rows:
        return
    db.execute(_TABLE)
    values = [(r.video_id, r.embedder, r.number, r.segment, r.nbytes, r.seal) for r in rows]
    db.executemany(
        f"INSERT OR REPLACE INTO embeddings ({_COLUMNS}, sum) VALUES (?, ?, ?, ?, ?, ?, ?)",
        [(*each, row_sum(*each)) for each in values],
    )


def forget(db: sqlite3.Connection, video_id: str, numbers: Iterable[int] | None = None) -> None:
    """Delete the rows of some segments of a video, or of all; part of a transaction."""
    if db.execute(_EXISTS).fetchone() is None:
        return
    if numbers is None:
        db.execute("DELETE FROM embeddings WHERE video_id = ?", (video_id,))
        return
    sql = "DELETE FROM embeddings WHERE video_id = ? AND number = ?"
    db.executemany(sql, [(video_id, number) for number in numbers])
