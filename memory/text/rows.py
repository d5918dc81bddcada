"""Rows of text lines in the bank's SQLite file, with a full-text index over their words.

Knows the database; no files, no ranking. The tables are created with the first text of a bank.
    text_runs    an extractor's lines of one video, made with the same settings
    text_blocks  the blocks of a run; each is also a file (memory/text/store.py)
    text_lines   the lines. The ids of a run are contiguous, from run << 32: one video is few ranges
    text_index   their words (memory/text/tokenizer.py), FTS5 without contents: the text itself is
                 stored once, in text_lines
Functions with a `db` parameter are one part of a larger transaction.
"""

import json
import math
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, replace

from encoders.errors import UserError
from encoders.text.lines import TextBlock, TextLine, TextSpan
from memory.storage import crash_points
from memory.storage.database import Database, digest, row_sum
from memory.text import block_file, tokenizer

# SQLite stores these statements verbatim in the file: a backslash only breaks a line here
_TABLES = (
    """CREATE TABLE IF NOT EXISTS text_runs (
    id INTEGER PRIMARY KEY, video_id TEXT NOT NULL, extractor TEXT NOT NULL, \
made_with TEXT NOT NULL,
    UNIQUE (video_id, extractor)
)""",
    """CREATE TABLE IF NOT EXISTS text_blocks (
    run INTEGER NOT NULL, number INTEGER NOT NULL, start REAL NOT NULL, "end" REAL NOT NULL, \
last INTEGER NOT NULL,
    note TEXT NOT NULL, lines INTEGER NOT NULL, first_id INTEGER NOT NULL, \
stop_id INTEGER NOT NULL,
    seal TEXT NOT NULL, vectors TEXT, PRIMARY KEY (run, number)
)""",
    """CREATE TABLE IF NOT EXISTS text_lines (
    id INTEGER PRIMARY KEY, start REAL NOT NULL, "end" REAL NOT NULL, known REAL NOT NULL, \
kind TEXT NOT NULL,
    confidence REAL NOT NULL, box TEXT, text TEXT NOT NULL, sum TEXT NOT NULL
)""",
    """CREATE VIRTUAL TABLE IF NOT EXISTS text_index
    USING fts5 (words, kind, content='', columnsize=0, tokenize='unicode61')""",
)
_BITS = 32  # low bits of a line's id: its place in the run
_LINE = 'id, start, "end", known, kind, confidence, box, text, sum'
_BLOCK = 'number, start, "end", last, note, lines, first_id, stop_id, seal, vectors'
_LINES_OF = f"SELECT {_LINE} FROM text_lines WHERE id >= ? AND id < ? ORDER BY id"
_IN_CHUNK = 500  # values in one SELECT ... IN
_INSERT_WORDS = "INSERT INTO text_index (rowid, words, kind) VALUES (?, ?, ?)"
# every word of the full-text index with its places
_VOCABULARY = """CREATE VIRTUAL TABLE IF NOT EXISTS temp.text_words
    USING fts5vocab ('main', 'text_index', 'instance')"""
_WORDS = 'SELECT term, doc, col, "offset" FROM temp.text_words'


@dataclass(frozen=True, slots=True)
class RunRow:
    """The progress of one extractor on one video."""

    id: int
    video_id: str
    extractor: str
    made_with: str
    blocks: int
    lines: int
    until: float  # seconds: the end of its last block
    finished: bool
    note: str

    @property
    def ids(self) -> range:
        """The ids that its lines can have."""
        return range(self.id << _BITS, (self.id + 1) << _BITS)


@dataclass(frozen=True, slots=True)
class BlockRow:
    """One block of a run."""

    number: int
    start: float
    end: float
    last: bool
    note: str
    lines: int
    first_id: int
    stop_id: int
    seal: str
    vectors: str | None = None  # checksum of the file of its vectors, if there is one


class TextRows:
    """Reads and writes runs, blocks and lines."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def state(self) -> tuple[int, ...]:
        """Changes with every change of the bank's database, by this process or another."""
        return self._database.state()

    @property
    def has_text(self) -> bool:
        """True if the bank ever had any text."""
        return bool(self._database.rows("SELECT 1 FROM sqlite_master WHERE name = 'text_index'"))

    def runs(self, video_id: str | None = None) -> list[RunRow]:
        """The runs of one video or of all, by video and extractor."""
        if not self.has_text:
            return []
        where, values = ("", ()) if video_id is None else ("WHERE video_id = ?", (video_id,))
        sql = f"""SELECT id, video_id, extractor, made_with, count(*), total(lines), max("end"),
            max(last), group_concat(nullif(note, ''), '; ') FROM text_runs
            JOIN text_blocks ON run = id {where} GROUP BY id ORDER BY video_id, extractor"""
        rows = self._database.rows(sql, *values)
        return [
            RunRow(
                id_, video, extractor, made_with, blocks, int(lines), until, bool(last), note or ""
            )
            for id_, video, extractor, made_with, blocks, lines, until, last, note in rows
        ]

    def run(self, video_id: str, extractor: str) -> RunRow | None:
        return next((run for run in self.runs(video_id) if run.extractor == extractor), None)

    def blocks(self, run: RunRow) -> list[BlockRow]:
        """The blocks of a run, in time order."""
        sql = f"SELECT {_BLOCK} FROM text_blocks WHERE run = ? ORDER BY number"
        return [_block(values) for values in self._database.rows(sql, run.id)]

    def block(self, run: RunRow, row: BlockRow) -> TextBlock:
        """A block with its lines. CatalogDamagedError if a row does not match its checksum."""
        lines = tuple(
            self._line(run.video_id, values)
            for values in self._database.rows(_LINES_OF, row.first_id, row.stop_id)
        )
        span = TextSpan(row.start, row.end, lines, row.last, row.note)
        return TextBlock(run.video_id, run.extractor, run.made_with, row.number, span)

    def add(self, *sealed: tuple[TextBlock, str], in_place_of: RunRow | None = None) -> None:
        """Acknowledge blocks of a new or existing run, each with its seal, in one transaction.

        in_place_of: a run whose rows are deleted with it. sqlite3.IntegrityError if a number
        exists.
        """
        with self._database.transaction() as db:
            for table in _TABLES:
                db.execute(table)
            if in_place_of is not None:
                _forget_run(db, in_place_of.id)
            for block, seal in sealed:
                add(db, block, seal)
            crash_points.reached("text rows")
        crash_points.reached("text rows commit")

    def seal_vectors(self, run: RunRow, row: BlockRow, checksum: str | None) -> None:
        """Record the checksum of the file of a block's vectors; None: it has none."""
        with self._database.transaction() as db:
            sql = "UPDATE text_blocks SET vectors = ? WHERE run = ? AND number = ?"
            db.execute(sql, (checksum, run.id, row.number))

    def remove(self, run: RunRow) -> None:
        """Delete the rows of a run."""
        with self._database.transaction() as db:
            _forget_run(db, run.id)

    def lines(self, ids: Sequence[int]) -> dict[int, TextLine]:
        """Lines by id; deleted ones are left out."""
        lines: dict[int, TextLine] = {}
        videos = dict(self._database.rows("SELECT id, video_id FROM text_runs")) if ids else {}
        for at in range(0, len(ids), _IN_CHUNK):
            chunk = ids[at : at + _IN_CHUNK]
            sql = f"SELECT {_LINE} FROM text_lines WHERE id IN ({', '.join('?' * len(chunk))})"
            for values in self._database.rows(sql, *chunk):
                video_id = videos.get(values[0] >> _BITS)
                if video_id is not None:
                    lines[values[0]] = self._line(video_id, values)
        return lines

    def search_ids(
        self,
        match: str,
        ids: range | None = None,
        known_by: float = math.inf,
        during: tuple[float, float] = (0.0, math.inf),
        *,
        most: int,
    ) -> list[int]:
        """Ids of lines whose words match (FTS5's query syntax), ascending, at most `most`.

        ids: only among these. known_by: only lines known by this second. during: only lines that
        overlap this span, in seconds.
        """
        values: list[str | float] = [match]
        sql, where = "SELECT text_index.rowid FROM text_index", ["text_index MATCH ?"]
        if ids is not None:
            where, values = (
                [*where, "text_index.rowid BETWEEN ? AND ?"],
                [*values, ids.start, ids.stop - 1],
            )
        if known_by < math.inf or during != (0.0, math.inf):
            sql += " JOIN text_lines ON id = text_index.rowid"
            where, values = (
                [*where, 'known <= ? AND start < ? AND "end" > ?'],
                [*values, known_by, during[1], during[0]],
            )
        rows = self._database.rows(
            f"{sql} WHERE {' AND '.join(where)} ORDER BY text_index.rowid LIMIT ?", *values, most
        )
        return [id_ for (id_,) in rows]

    def count(self, ids: range | None = None, known_by: float = math.inf) -> int:
        """Number of lines, with the same limits as in `search_ids`."""
        if ids is None:
            return int(self._database.rows("SELECT total(lines) FROM text_blocks")[0][0])
        sql = "SELECT count(*) FROM text_lines WHERE id >= ? AND id < ? AND known <= ?"
        return int(self._database.rows(sql, ids.start, ids.stop, known_by)[0][0])

    def damage(self) -> list[str]:
        """Problems of the rows: blocks whose lines do not match their seal."""
        problems = []
        for run in self.runs():
            for row in self.blocks(run):
                block = self.block(run, row)
                count = len(block.span.lines)
                if block_file.seal(block_file.pack(block)) != row.seal or not (
                    count == row.lines == row.stop_id - row.first_id
                ):
                    problems.append(
                        f"text block {row.number} of {run.extractor} of video {run.video_id} is "
                        "not as it was written"
                    )
        return problems

    def is_index_whole(self) -> bool:
        """True if the full-text index holds the words of the lines, no more and no less. SQLite has
        no checksums, so the words are indexed again, in memory."""
        if not self.has_text:
            return True
        fresh = sqlite3.connect(":memory:")
        fresh.execute(_TABLES[-1])
        lines = self._database.rows("SELECT id, text, kind FROM text_lines ORDER BY id")
        fresh.executemany(_INSERT_WORDS, map(_indexed, lines))
        fresh.execute(_VOCABULARY)
        self._database.rows(_VOCABULARY)
        return self._database.digest(_WORDS) == digest(fresh.execute(_WORDS))

    def index_again(self) -> None:
        """Make the full-text index again from the lines."""
        with self._database.transaction() as db:
            db.execute("DROP TABLE text_index")
            db.execute(_TABLES[-1])
            lines = db.execute("SELECT id, text, kind FROM text_lines ORDER BY id")
            db.executemany(_INSERT_WORDS, map(_indexed, lines))

    def _line(self, video_id: str, values: tuple) -> TextLine:
        if row_sum(*values[1:-1]) != values[-1]:
            raise self._database.row_error()
        return _to_line(video_id, values)


def index_damage(database: Database) -> str | None:
    """What is wrong with the full-text index; None if it is whole. Only if nothing else is."""
    text = "the index of words is not that of the lines"
    try:
        return None if TextRows(database).is_index_whole() else text
    except (UserError, sqlite3.DatabaseError):
        return text


def _has_tables(db: sqlite3.Connection) -> bool:
    """True if the bank ever had any text."""
    return (
        db.execute("SELECT 1 FROM sqlite_master WHERE name = 'text_index'").fetchone() is not None
    )


def add(db: sqlite3.Connection, block: TextBlock, seal: str, first: int | None = None) -> None:
    """Insert a block. first: id of its first line; None: after all lines of its run."""
    values = (block.video_id, block.extractor, block.made_with)
    db.execute(
        "INSERT OR IGNORE INTO text_runs (video_id, extractor, made_with) VALUES (?, ?, ?)", values
    )
    (run,) = db.execute(
        "SELECT id FROM text_runs WHERE video_id = ? AND extractor = ?", values[:2]
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
        columns = (*times, line.kind, float(line.confidence), box, line.text)
        rows.append((id_, *columns, row_sum(*columns)))
        index.append(_indexed((id_, line.text, line.kind)))
    db.executemany(f"INSERT INTO text_lines ({_LINE}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
    db.executemany(_INSERT_WORDS, index)
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
        None,
    )
    sql = f"INSERT INTO text_blocks (run, {_BLOCK}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
    db.execute(sql, (run, block.number, *head))


def forget_video(db: sqlite3.Connection, video_id: str) -> None:
    """Delete all text rows of a video."""
    if not _has_tables(db):
        return
    for (run,) in db.execute("SELECT id FROM text_runs WHERE video_id = ?", (video_id,)).fetchall():
        _forget_run(db, run)


def forget_before(db: sqlite3.Connection, video_id: str, start: float) -> None:
    """Delete the text of a video before a second. A block across it is cut and gets a new seal."""
    if not _has_tables(db):
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
    """A block without the lines that ended by this second; lines across it begin there. None if
    nothing is left. The last block of a run stays even if empty: it marks the run as complete."""
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
    # FTS5 without contents: a delete must name the indexed text
    sql = "INSERT INTO text_index (text_index, rowid, words, kind) VALUES ('delete', ?, ?, ?)"
    db.executemany(sql, map(_indexed, rows))
    db.execute("DELETE FROM text_lines WHERE id >= ? AND id < ?", (first, stop))


def _indexed(line: tuple[int, str, str]) -> tuple[int, str, str]:
    """A row of the full-text index from the id, text and kind of a line."""
    id_, text, kind = line
    return id_, tokenizer.index_text(text), kind


def _block(values: tuple) -> BlockRow:
    number, start, end, last, *rest = values
    return BlockRow(number, start, end, bool(last), *rest)


def _to_line(video_id: str, values: tuple) -> TextLine:
    _, start, end, known_at, kind, confidence, box, text, _ = values
    place = None if box is None else tuple(json.loads(box))
    return TextLine(video_id, start, end, kind, text, known_at, confidence, place)
