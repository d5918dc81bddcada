"""Which segments have rows of which further frame embedder.

Knows rows of SQLite alone; no files.
"""

from dataclasses import dataclass

from memory.storage.database import Database, raise_revision
from memory.storage.segments import side_rows
from memory.storage.segments.side_rows import EMBEDDINGS, SideRow, SideRows


@dataclass(frozen=True, slots=True)
class EmbedderCount:
    """How much of a video a further embedder has embedded."""

    embedder: str  # key
    segments: int
    frames: int
    nbytes: int


class EmbeddingRows(SideRows):
    """Reads and writes the table. The maker of a file is the key of an embedder."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, EMBEDDINGS)

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

    def add(self, row: SideRow) -> bool:
        """Acknowledge rows of a stored segment. True if the embedder now has rows of the whole
        video: then readers that have the video in memory read it again."""
        with self._database.transaction() as db:
            side_rows.add(db, EMBEDDINGS, [row])
            sql = """SELECT 1 FROM segments AS s WHERE video_id = ? AND NOT EXISTS (
                SELECT 1 FROM embeddings AS e WHERE e.video_id = s.video_id
                AND e.number = s.number AND e.segment = s.checksum AND e.embedder = ?) LIMIT 1"""
            is_whole = db.execute(sql, (row.video_id, row.maker)).fetchone() is None
            if is_whole:
                raise_revision(db)
        return is_whole

    def publish(self) -> None:
        """Make readers that have videos in memory read them again."""
        with self._database.transaction() as db:
            raise_revision(db)
