"""Which segments have a further file beside their own, in a table of the bank's catalog.

Knows rows of SQLite alone; no files. A row names the seal of the segment: files of a segment that
was encoded again with other bytes do not count. A table exists in banks that have, or had, such
files; an older Reelbank does not look at it.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from memory.storage.database import Database, row_sum


@dataclass(frozen=True, slots=True)
class SideRow:
    """One file beside a segment."""

    video_id: str
    maker: str  # key of what made it: of a frame embedder, or of settings
    number: int  # of the segment
    segment: str  # seal of the segment
    nbytes: int  # of the file
    seal: str  # of the file


@dataclass(frozen=True, slots=True)
class SideTable:
    """A table of such rows."""

    name: str
    maker: str  # the column with the key of what made the file

    @property
    def columns(self) -> str:
        return f"video_id, {self.maker}, number, segment, bytes, seal"

    @property
    def exists(self) -> str:
        """A query that finds a row if the table is there."""
        return f"SELECT 1 FROM sqlite_master WHERE name = '{self.name}'"

    @property
    def outdated(self) -> str:
        """True for a row whose segment is gone, or was encoded again: an older Reelbank may have
        done it."""
        return f"""NOT EXISTS (SELECT 1 FROM segments WHERE segments.video_id = {self.name}.video_id
    AND segments.number = {self.name}.number AND segments.checksum = {self.name}.segment)"""


EMBEDDINGS = SideTable("embeddings", "embedder")  # memory/embeddings/store.py
ENCODED = SideTable("encoded", "settings")  # memory/encoded/encoded_store.py
_TABLES = (EMBEDDINGS, ENCODED)


class SideRows:
    """Reads and writes one table."""

    def __init__(self, database: Database, table: SideTable) -> None:
        self._database, self._table = database, table

    @property
    def is_empty(self) -> bool:
        """True if the bank never had such a file."""
        return not self._database.rows(self._table.exists)

    def row(self, video_id: str, maker: str, number: int) -> SideRow | None:
        """None if there is no such file of the segment."""
        found = self._rows(
            f"WHERE video_id = ? AND {self._table.maker} = ? AND number = ?",
            video_id,
            maker,
            number,
        )
        return found[0] if found else None

    def rows(self, video_id: str | None = None) -> list[SideRow]:
        """Rows of one video or of all, by video, maker and number. CatalogDamagedError."""
        order = f"ORDER BY video_id, {self._table.maker}, number"
        if video_id is None:
            return self._rows(order)
        return self._rows(f"WHERE video_id = ? {order}", video_id)

    def missing(self, video_id: str, maker: str) -> list[int]:
        """Numbers of the segments that have no such file, ascending."""
        if self.is_empty:
            sql = "SELECT number FROM segments WHERE video_id = ? ORDER BY number"
            return [number for (number,) in self._database.rows(sql, video_id)]
        table = self._table
        sql = f"""SELECT s.number FROM segments AS s LEFT JOIN {table.name} AS e
            ON e.video_id = s.video_id AND e.number = s.number AND e.segment = s.checksum
            AND e.{table.maker} = ? WHERE s.video_id = ? AND e.number IS NULL ORDER BY s.number"""
        return [number for (number,) in self._database.rows(sql, maker, video_id)]

    def nbytes(self, video_id: str) -> dict[int, int]:
        """Bytes of all such files of each segment, by its number."""
        if self.is_empty:
            return {}
        sql = f"""SELECT number, total(bytes) FROM {self._table.name} WHERE video_id = ?
            GROUP BY number"""
        return {number: int(nbytes) for number, nbytes in self._database.rows(sql, video_id)}

    def remove(self, rows: Iterable[SideRow]) -> None:
        """Delete rows whose files are damaged."""
        names = [(row.video_id, row.maker, row.number) for row in rows]
        if not names:  # of a bank without the table, too
            return
        table = self._table
        with self._database.transaction() as db:
            db.executemany(
                f"DELETE FROM {table.name} WHERE video_id = ? AND {table.maker} = ? AND number = ?",
                names,
            )

    def remove_outdated(self) -> None:
        """Delete rows of segments that are gone or were encoded again."""
        table = self._table
        if not self.is_empty and self._database.rows(
            f"SELECT 1 FROM {table.name} WHERE {table.outdated} LIMIT 1"
        ):
            with self._database.transaction() as db:
                db.execute(f"DELETE FROM {table.name} WHERE {table.outdated}")

    def _rows(self, where: str, *values: str | float) -> list[SideRow]:
        if self.is_empty:
            return []
        table = self._table
        found = self._database.rows(
            f"SELECT {table.columns}, sum FROM {table.name} {where}", *values
        )
        for *columns, checksum in found:
            if row_sum(*columns) != checksum:
                raise self._database.row_error()
        return [SideRow(*columns) for *columns, _ in found]


def add(db: sqlite3.Connection, table: SideTable, rows: Sequence[SideRow]) -> None:
    """Insert rows, or replace those of the same segments; part of a transaction."""
    if not rows:
        return
    db.execute(
        f"""CREATE TABLE IF NOT EXISTS {table.name} (
    video_id TEXT NOT NULL, {table.maker} TEXT NOT NULL, number INTEGER NOT NULL, \
segment TEXT NOT NULL,
    bytes INTEGER NOT NULL, seal TEXT NOT NULL, sum TEXT NOT NULL,
    PRIMARY KEY (video_id, {table.maker}, number)
)"""
    )
    values = [(r.video_id, r.maker, r.number, r.segment, r.nbytes, r.seal) for r in rows]
    db.executemany(
        f"INSERT OR REPLACE INTO {table.name} ({table.columns}, sum) VALUES (?, ?, ?, ?, ?, ?, ?)",
        [(*each, row_sum(*each)) for each in values],
    )


def forget(db: sqlite3.Connection, video_id: str, numbers: Iterable[int] | None = None) -> None:
    """Delete the rows of some segments of a video, or of all, from every table; part of a
    transaction."""
    chosen = None if numbers is None else [(video_id, number) for number in numbers]
    for table in _TABLES:
        if db.execute(table.exists).fetchone() is None:
            continue
        if chosen is None:
            db.execute(f"DELETE FROM {table.name} WHERE video_id = ?", (video_id,))
        else:
            sql = f"DELETE FROM {table.name} WHERE video_id = ? AND number = ?"
            db.executemany(sql, chosen)
