"""Text lines in the catalog: rows, and a full-text index over their words. One transaction with whatever else is committed.

Knows SQLite and the catalog's connection; no files, no ranking. The tables come with the first text of a bank.
    text_runs    an extractor's lines of one video, made with the same settings
    text_blocks  its stretches; each is also a file (memory/text/store.py)
    text_lines   the lines; the ids of a run lie together (run << 32, and up), so one video is a range of ids
    text_index   their words (memory/text/tokenizer.py), FTS5 without contents: the words are there once, in text_lines
"""

import json
import math
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, replace

from encoders.errors import UserError
from encoders.text.lines import TextBlock, TextLine, TextSpan
from memory.storage import crash_points
from memory.storage.catalog import Catalog, row_problems
from memory.storage.database import Database, row_sum
from memory.text import block_file, tokenizer

_TABLES = (
    """CREATE TABLE IF NOT EXISTS text_runs (
    id INTEGER PRIMARY KEY, video_id TEXT NOT NULL, extractor TEXT NOT NULL, made_with TEXT NOT NULL,
    UNIQUE (video_id, extractor)
)""",
    """CREATE TABLE IF NOT EXISTS text_blocks (
    run INTEGER NOT NULL, number INTEGER NOT NULL, start REAL NOT NULL, "end" REAL NOT NULL, last INTEGER NOT NULL,
    note TEXT NOT NULL, lines INTEGER NOT NULL, first_id INTEGER NOT NULL, stop_id INTEGER NOT NULL,
    seal TEXT NOT NULL, PRIMARY KEY (run, number)
)""",
    """CREATE TABLE IF NOT EXISTS text_lines (
    id INTEGER PRIMARY KEY, start REAL NOT NULL, "end" REAL NOT NULL, known REAL NOT NULL, kind TEXT NOT NULL,
    confidence REAL NOT NULL, box TEXT, text TEXT NOT NULL, sum TEXT NOT NULL
)""",
    """CREATE VIRTUAL TABLE IF NOT EXISTS text_index
    USING fts5 (words, kind, content='', columnsize=0, tokenize='unicode61')""",
)
_BITS = 32  # of a line's id within its run
_LINE = 'id, start, "end", known, kind, confidence, box, text, sum'
_BLOCK = 'number, start, "end", last, note, lines, first_id, stop_id, seal'
_LINES_OF = f"SELECT {_LINE} FROM text_lines WHERE id >= ? AND id < ? ORDER BY id"
_IN_CHUNK = 500  # values of one SELECT ... IN


@dataclass(frozen=True, slots=True)
class RunRow:
    """What an extractor has found of a video so far."""

    id: int
    video_id: str
    extractor: str
    made_with: str
    blocks: int
    lines: int
    until: float  # seconds: the end of its last stretch
    finished: bool
    note: str

    @property
    def ids(self) -> range:
        """Of its lines."""
        return range(self.id << _BITS, (self.id + 1) << _BITS)


@dataclass(frozen=True, slots=True)
class BlockRow:
    """One stretch."""

    number: int
    start: float
    end: float
    last: bool
    note: str
    lines: int
    first_id: int
    stop_id: int
    seal: str


class TextRows:
    """Rows of text in a catalog."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def state(self) -> tuple[int, int]:
        """Differs after every change of the bank's database."""
        return self._database.state()

    @property
    def has_text(self) -> bool:
        """Whether the bank has ever had any text."""
        return bool(self._database.rows("SELECT 1 FROM sqlite_master WHERE name = 'text_index'"))

    def runs(self, video_id: str | None = None) -> list[RunRow]:
        """Of one video or of all, by video and extractor."""
        if not self.has_text:
            return []
        where, values = ("", ()) if video_id is None else ("WHERE video_id = ?", (video_id,))
        sql = f"""SELECT id, video_id, extractor, made_with, count(*), total(lines), max("end"), max(last),
            group_concat(nullif(note, ''), '; ') FROM text_runs JOIN text_blocks ON run = id {where}
            GROUP BY id ORDER BY video_id, extractor"""
        return [
            RunRow(run, video, extractor, made, blocks, int(lines), until, bool(last), note or "")
            for run, video, extractor, made, blocks, lines, until, last, note in self._database.rows(
                sql, *values
            )
        ]

    def run(self, video_id: str, extractor: str) -> RunRow | None:
        return next((run for run in self.runs(video_id) if run.extractor == extractor), None)

    def blocks(self, run: RunRow) -> list[BlockRow]:
        """In time order."""
        sql = f"SELECT {_BLOCK} FROM text_blocks WHERE run = ? ORDER BY number"
        return [_block(values) for values in self._database.rows(sql, run.id)]

    def block(self, run: RunRow, row: BlockRow) -> TextBlock:
        """A block as its file has it. CatalogDamagedError when a row is not as it was written."""
        lines = tuple(
            self._line(run.video_id, values)
            for values in self._database.rows(_LINES_OF, row.first_id, row.stop_id)
        )
        span = TextSpan(row.start, row.end, lines, row.last, row.note)
        return TextBlock(run.video_id, run.extractor, run.made_with, row.number, span)

    def add(self, block: TextBlock, seal: str) -> None:
        """Acknowledge a block, of a run that is there or new. sqlite3.IntegrityError when its number is taken."""
        with self._database.transaction() as db:
            for table in _TABLES:
                db.execute(table)
            add(db, block, seal)
            crash_points.reached("text rows")
        crash_points.reached("text rows commit")

    def remove(self, run: RunRow) -> None:
        """Forget a run."""
        with self._database.transaction() as db:
            _forget_run(db, run.id)

    def lines(self, ids: Sequence[int]) -> dict[int, TextLine]:
        """Lines by id; those that are gone are not among them."""
        found: dict[int, TextLine] = {}
        videos = dict(self._database.rows("SELECT id, video_id FROM text_runs")) if ids else {}
        for at in range(0, len(ids), _IN_CHUNK):
            chunk = ids[at : at + _IN_CHUNK]
            sql = f"SELECT {_LINE} FROM text_lines WHERE id IN ({', '.join('?' * len(chunk))})"
            for values in self._database.rows(sql, *chunk):
                video_id = videos.get(values[0] >> _BITS)
                if video_id is not None:
                    found[values[0]] = self._line(video_id, values)
        return found

    def search_ids(
        self,
        match: str,
        ids: range | None = None,
        known: float = math.inf,
        during: tuple[float, float] = (0.0, math.inf),
        *,
        most: int,
    ) -> list[int]:
        """Ids of lines whose words match (FTS5's query syntax), rising; at most so many. ids: only among these. known: only
        lines that were known by this second. during: only lines that share time with these seconds."""
        values: list[str | float] = [match]
        sql, where = "SELECT text_index.rowid FROM text_index", ["text_index MATCH ?"]
        if ids is not None:
            where, values = (
                [*where, "text_index.rowid BETWEEN ? AND ?"],
                [*values, ids.start, ids.stop - 1],
            )
        if known < math.inf or during != (0.0, math.inf):
            sql += " JOIN text_lines ON id = text_index.rowid"
            where, values = (
                [*where, 'known <= ? AND start < ? AND "end" > ?'],
                [*values, known, during[1], during[0]],
            )
        rows = self._database.rows(
            f"{sql} WHERE {' AND '.join(where)} ORDER BY text_index.rowid LIMIT ?", *values, most
        )
        return [id_ for (id_,) in rows]

    def count(self, ids: range | None = None, known: float = math.inf) -> int:
        """Lines there are; the same limits."""
        if ids is None:
            return int(self._database.rows("SELECT total(lines) FROM text_blocks")[0][0])
        sql = "SELECT count(*) FROM text_lines WHERE id >= ? AND id < ? AND known <= ?"
        return int(self._database.rows(sql, ids.start, ids.stop, known)[0][0])

    def damage(self) -> list[str]:
        """What is wrong with the rows in themselves."""
        found = []
        for run in self.runs():
            for row in self.blocks(run):
                if block_file.seal(block_file.pack(self.block(run, row))) != row.seal:
                    found.append(
                        f"text block {row.number} of {run.extractor} of video {run.video_id} is not as it was written"
                    )
        return found

    def _line(self, video_id: str, values: tuple) -> TextLine:
        if row_sum(*values[1:-1]) != values[-1]:
            raise self._database.row_error()
        return _to_line(video_id, values)


def damage_of(database: Database) -> list[str]:
    """What is wrong with the file itself, or with a row of the catalog or of text."""
    try:
        return database.damage() + row_problems(Catalog(database)) + TextRows(database).damage()
    except UserError as error:
        return [str(error)]


def exists(db: sqlite3.Connection) -> bool:
    """Whether the tables are there."""
    return (
        db.execute("SELECT 1 FROM sqlite_master WHERE name = 'text_index'").fetchone() is not None
    )


def add(db: sqlite3.Connection, block: TextBlock, seal: str, first: int | None = None) -> None:
    """A block into the tables, within a transaction. first: id of its first line; None = behind all lines of its run."""
    made = (block.video_id, block.extractor, block.made_with)
    db.execute(
        "INSERT OR IGNORE INTO text_runs (video_id, extractor, made_with) VALUES (?, ?, ?)", made
    )
    (run,) = db.execute(
        "SELECT id FROM text_runs WHERE video_id = ? AND extractor = ?", made[:2]
    ).fetchone()
    if first is None:
        (last,) = db.execute(
            "SELECT max(stop_id) FROM text_blocks WHERE run = ?", (run,)
        ).fetchone()
        first = last or run << _BITS
    rows, index = [], []
    for id_, line in enumerate(block.span.lines, start=first):
        box = None if line.box is None else json.dumps([float(side) for side in line.box])
        times = (float(line.start), float(line.end), float(line.known))
        values = (*times, line.kind, float(line.confidence), box, line.text)
        rows.append((id_, *values, row_sum(*values)))
        index.append((id_, tokenizer.indexed(line.text), line.kind))
    db.executemany(f"INSERT INTO text_lines ({_LINE}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
    db.executemany("INSERT INTO text_index (rowid, words, kind) VALUES (?, ?, ?)", index)
    s = block.span
    head = (
        float(s.start),
        float(s.end),
        int(s.last),
        s.note,
        len(rows),
        first,
        first + len(rows),
        seal,
    )
    sql = f"INSERT INTO text_blocks (run, {_BLOCK}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
    db.execute(sql, (run, block.number, *head))


def forget_video(db: sqlite3.Connection, video_id: str) -> None:
    """All text of a video, within a transaction."""
    if not exists(db):
        return
    for (run,) in db.execute("SELECT id FROM text_runs WHERE video_id = ?", (video_id,)).fetchall():
        _forget_run(db, run)


def forget_before(db: sqlite3.Connection, video_id: str, start: float) -> None:
    """The text of a video before a second, within a transaction. A block that reaches over it gets the seal of what is left."""
    if not exists(db):
        return
    runs = db.execute(
        "SELECT id, extractor, made_with FROM text_runs WHERE video_id = ?", (video_id,)
    ).fetchall()
    for run, extractor, made_with in runs:
        sql = f"SELECT {_BLOCK} FROM text_blocks WHERE run = ? AND start < ?"
        for row in [_block(values) for values in db.execute(sql, (run, start)).fetchall()]:
            lines = db.execute(_LINES_OF, (row.first_id, row.stop_id)).fetchall()
            span = TextSpan(
                row.start,
                row.end,
                tuple(_to_line(video_id, line) for line in lines),
                row.last,
                row.note,
            )
            _forget_lines(db, row.first_id, row.stop_id)
            db.execute("DELETE FROM text_blocks WHERE run = ? AND number = ?", (run, row.number))
            left = cut_before(TextBlock(video_id, extractor, made_with, row.number, span), start)
            if left is not None:
                add(db, left, block_file.seal(block_file.pack(left)), row.first_id)


def cut_before(block: TextBlock, start: float) -> TextBlock | None:
    """A block without what was over by this second; what goes on begins there. None when nothing is left. The last block of a
    run stays, if empty: it says that the run is complete."""
    s = block.span
    if s.start >= start:
        return block
    lines = tuple(
        replace(line, start=max(line.start, start)) for line in s.lines if line.end > start
    )
    if s.end <= start and not s.last and not lines:
        return None
    return replace(block, span=replace(s, start=start, end=max(s.end, start), lines=lines))


def _forget_run(db: sqlite3.Connection, run: int) -> None:
    _forget_lines(db, run << _BITS, (run + 1) << _BITS)
    db.execute("DELETE FROM text_blocks WHERE run = ?", (run,))
    db.execute("DELETE FROM text_runs WHERE id = ?", (run,))


def _forget_lines(db: sqlite3.Connection, first: int, stop: int) -> None:
    rows = db.execute(
        "SELECT id, text, kind FROM text_lines WHERE id >= ? AND id < ?", (first, stop)
    ).fetchall()
    # an index without contents has to be told what it forgets
    sql = "INSERT INTO text_index (text_index, rowid, words, kind) VALUES ('delete', ?, ?, ?)"
    db.executemany(sql, [(id_, tokenizer.indexed(text), kind) for id_, text, kind in rows])
    db.execute("DELETE FROM text_lines WHERE id >= ? AND id < ?", (first, stop))


def _block(values: tuple) -> BlockRow:
    number, start, end, last, *rest = values
    return BlockRow(number, start, end, bool(last), *rest)


def _to_line(video_id: str, values: tuple) -> TextLine:
    _, start, end, known, kind, confidence, box, text, _ = values
    place = None if box is None else tuple(json.loads(box))
    return TextLine(video_id, start, end, kind, text, known, confidence, place)
