"""Lines of text that extractors found in videos, and the vectors of these lines: `bank.text`.

Knows the text store; no frames, no retriever, and no model that computes a vector.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from encoders.text.lines import TextBlock, TextLine
from memory.storage.os_errors import as_user_errors
from memory.text import bm25, nearest
from memory.text.bm25 import LineFilter, RankedLine
from memory.text.rows import BlockRow, RunRow
from memory.text.store import TextGap, TextStore
from memory.text.tokenizer import Query


class BankText:
    """Writes and searches text. Every writing method raises UserError if the disk refuses, or if
    another process writes."""

    def __init__(self, root: Path, store: TextStore, begin_writing: Callable[[], None]) -> None:
        self._root, self._store, self._begin_writing = root, store, begin_writing

    def write(self, *blocks: TextBlock, replaces: bool = False) -> None:
        """Store the next lines of an extractor for a recorded video, or lines that are missing. On
        return they are durable and searchable.

        replaces: they are all lines of the extractor, in place of what it had: all or none.
        """
        self._begin_writing()
        with as_user_errors(self._root):
            if replaces:
                self._store.replace_run(blocks)
            for block in () if replaces else blocks:
                self._store.put(block)

    def drop(self, video_id: str, extractor: str) -> None:
        """Delete everything that an extractor found in a video."""
        self._begin_writing()
        run = self._store.rows.run(video_id, extractor)
        if run is not None:
            with as_user_errors(self._root):
                self._store.drop_run(run)

    def missing(self, video_id: str, extractor: str) -> list[TextGap]:
        """Stretches of a video that an extractor has not processed yet; empty when it has
        finished."""
        return self._store.missing(video_id, extractor)

    def runs(self, video_id: str | None = None) -> list[RunRow]:
        """One row for each extractor and video. video_id: None lists all videos."""
        return self._store.rows.runs(video_id)

    def lines(self, run: RunRow, row: BlockRow) -> tuple[TextLine, ...]:
        """The lines of one block."""
        return self._store.rows.block(run, row).span.lines

    def during(self, video_id: str, start: float, end: float) -> list[TextLine]:
        """All lines of a video that overlap a span, in seconds; by extractor and time."""
        rows = self._store.rows
        return [
            line
            for run in rows.runs(video_id)
            for row in rows.blocks(run)
            if row.start <= end and row.end >= start
            for line in rows.block(run, row).span.lines
            if line.start < end and line.end > start
        ]

    def search(self, query: Query, line_filter: LineFilter, most: int = 50) -> list[RankedLine]:
        """Lines ranked by BM25, best first."""
        return bm25.search(self._store.rows, query, line_filter, most)

    def nbytes(self, video_id: str) -> int:
        """Bytes of a video's text files and vector files."""
        return self._store.nbytes(video_id)

    # ---- vectors of lines

    def missing_vectors(self, video_id: str) -> Iterator[tuple[RunRow, BlockRow]]:
        """Blocks whose lines have no vectors yet."""
        return self._store.vectors.missing(video_id)

    def write_vectors(
        self, run: RunRow, row: BlockRow, vectors: np.ndarray, made_with: str
    ) -> None:
        """Store the vectors of a block's lines: [lines, E] unit rows. On return they are durable
        and searchable.
        made_with: names the model; UserError if the bank has vectors of another one."""
        self._begin_writing()
        with as_user_errors(self._root):
            self._store.vectors.put(run, row, vectors, made_with)

    def vectors(self, video_id: str) -> dict[TextLine, np.ndarray]:
        """[E] float32 unit row of each line of a video that has one."""
        rows = self._store.rows
        stored: dict[TextLine, np.ndarray] = {}
        for run in rows.runs(video_id):
            for row in rows.blocks(run):
                vectors = self._store.vectors.read(run, row) if row.lines else None
                if vectors is not None:
                    stored |= zip(self.lines(run, row), vectors, strict=True)
        return stored

    @property
    def has_vectors(self) -> bool:
        """Whether lines ever had vectors. UserError if the file that names their model is
        damaged."""
        return self._store.vectors.made_with is not None

    def refuse_other_vectors(self, made_with: str) -> None:
        """UserError if the bank has vectors of another model."""
        self._store.vectors.require_model(made_with)

    def count_vectors(self) -> tuple[int, int]:
        """(lines with a vector, all lines)."""
        rows = self._store.rows
        return self._store.vectors.count(), rows.count() if rows.has_text else 0

    def nearest(
        self,
        query: np.ndarray,
        line_filter: LineFilter,
        most: int = 50,
        least: float = nearest.MIN_COSINE,
    ) -> list[RankedLine]:
        """Lines ranked by cosine with the query, best first; `score` and `coverage` are the cosine.
        query: [E] unit. least: lines with a lower cosine are left out."""
        rows, vectors = self._store.rows, self._store.vectors
        return nearest.search(rows, vectors, query, line_filter, most, least)
