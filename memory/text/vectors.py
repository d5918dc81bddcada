"""Vectors of text lines on disk and in RAM: stored beside the lines and deleted with them.

Knows files, rows of the catalog and numbers; no model, only its name.
Layout:
    <bank>/vectors/<video_id>/<extractor>/<number:06d>-<seal of the text block>.vec
                                memory/text/vector_file.py
    <bank>/vectors/made_with    one line: the model of all vectors; touched at every write
Every file is complete (temporary name, fsync, rename). Its name holds the seal of its text: after a
block was cut or extracted again, its seal differs, and its vectors are missing until they are
computed again. So no loss of vectors is final.
"""

import shutil
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from encoders.errors import UserError
from memory.storage import crash_points
from memory.storage.atomic import TEMPORARY, make_folder, write_atomically
from memory.text import vector_file
from memory.text.rows import BlockRow, RunRow, TextRows
from memory.text.vector_index import VectorIndex

FOLDER = "vectors"


class TextVectors:
    """Vectors of many videos' lines under one folder. One thread writes while many search."""

    def __init__(self, root: Path, text_rows: TextRows) -> None:
        self._bank, self._root, self._text_rows = root, root / FOLDER, text_rows
        self._lock = threading.Lock()
        self._index: VectorIndex | None = None
        self._ids_by_file: dict[Path, range] = {}  # files in the index, with their lines' ids
        self._state: object = None  # of folder and catalog, when the index was last synced

    def path(self, video_id: str, extractor: str, row: BlockRow) -> Path:
        """The file with the vectors of a block."""
        return self._root / video_id / extractor / f"{row.number:06d}-{row.seal[:16]}.vec"

    def folder(self, video_id: str) -> Path:
        """The folder with the vectors of a video."""
        return self._root / video_id

    @property
    def made_with(self) -> str | None:
        """The name of the model of all vectors in the bank; None if it never had any."""
        try:
            return (self._root / "made_with").read_text().strip()
        except FileNotFoundError:
            return None

    @property
    def nbytes(self) -> int:
        """RAM that the vectors take."""
        return 0 if self._index is None else self._index.nbytes

    def put(self, run: RunRow, row: BlockRow, rows: np.ndarray, made_with: str) -> None:
        """Store the vectors of a block's lines: [lines, E], unit; durable on return. UserError if
        the bank has vectors of another model."""
        if rows.shape[0] != row.lines:
            raise ValueError(f"{rows.shape[0]} vectors for {row.lines} lines")
        self.require_model(made_with)
        path = self.path(run.video_id, run.extractor, row)
        make_folder(path.parent)
        if self.made_with is None:
            write_atomically(self._root / "made_with", made_with.encode())
        write_atomically(path, vector_file.pack(rows, made_with))
        (self._root / "made_with").touch()
        crash_points.reached("vectors")

    def require_model(self, made_with: str) -> None:
        """UserError if the bank has vectors of another model."""
        before = self.made_with
        if before is not None and before != made_with:
            raise UserError(
                f"bank {self._bank} has vectors of its lines by another model ({before}; this run: "
                f"{made_with}); give its dense=, or delete {self._root} to have them made anew"
            )

    def missing(self, video_id: str) -> Iterator[tuple[RunRow, BlockRow]]:
        """Blocks whose lines have no vectors."""
        for run in self._text_rows.runs(video_id):
            for row in self._text_rows.blocks(run):
                if row.lines and not self.path(video_id, run.extractor, row).exists():
                    yield run, row

    def search(
        self, query: np.ndarray, k: int, among: Sequence[range] | None = None
    ) -> tuple[Sequence[int], Sequence[float]]:
        """Ids of the k lines with the largest inner products, and those products, best first.
        query: [E]. among: only ids in these ranges; None: all."""
        index = self._synced_index()
        if index is None:
            return [], []
        ids, scores = index.search(query, k, among)
        return ids.tolist(), scores.tolist()

    def count(self) -> int:
        """Number of lines with a vector."""
        index = self._synced_index()
        return 0 if index is None else len(index)

    # ---- following the lines

    def drop(self, video_id: str, extractor: str = "") -> None:
        """Delete the vectors of a video, or only those of one extractor's lines."""
        shutil.rmtree(self._root / video_id / extractor, ignore_errors=True)

    def sweep(self, video_id: str | None = None) -> None:
        """Delete files whose text is gone, and what a crash left. For the one writer."""
        folder = self._root if video_id is None else self._root / video_id
        expected = self._expected(video_id)
        for path in folder.rglob("*") if folder.is_dir() else ():
            if path.is_file() and path.name != "made_with" and path not in expected:
                path.unlink(missing_ok=True)

    def problems(self) -> Iterator[tuple[Path, str, str]]:
        """(file, problem, video id). The problem is "" for a leftover file, whose text is gone."""
        expected = self._expected(None)
        for path in sorted(self._root.rglob("*")) if self._root.is_dir() else ():
            if not path.is_file() or path.name == "made_with":
                continue
            if path not in expected or path.name.endswith(TEMPORARY):
                yield path, "", ""
            elif _read(path) is None:
                text = (
                    "the vectors of these lines are damaged; `repair` deletes them, "
                    "`reelbank ingest dense=` makes them again"
                )
                yield path, text, path.parts[-3]

    def clear(self) -> list[tuple[Path, str, str]]:
        """Delete damaged files; returns their problems."""
        damaged = [problem for problem in self.problems() if problem[1]]
        for path, _, _ in damaged:
            path.unlink()
        return damaged

    def _expected(self, video_id: str | None) -> dict[Path, range]:
        """The vector file of every block with lines, with the ids of these lines."""
        rows = self._text_rows
        return {
            self.path(run.video_id, run.extractor, row): range(row.first_id, row.stop_id)
            for run in rows.runs(video_id)
            for row in rows.blocks(run)
            if row.lines
        }

    def _synced_index(self) -> VectorIndex | None:
        """The index, after taking in new files and removing the lines of deleted ones."""
        with self._lock:
            touched: int | None
            try:
                touched = (self._root / "made_with").stat().st_mtime_ns
            except FileNotFoundError:
                touched = None  # not 0: an archive may restore files with a time of 0
            state = (touched, self._text_rows.state())
            if state == self._state:
                return self._index
            expected = {} if touched is None else self._expected(None)
            for path in [path for path in self._ids_by_file if path not in expected]:
                if self._index is not None:
                    self._index.remove(self._ids_by_file.pop(path))
            for path, ids in expected.items():
                rows = None if path in self._ids_by_file else _read(path)
                if rows is not None and len(rows) == len(ids):
                    if self._index is None or self._index.width != rows.shape[1]:
                        self._index, self._ids_by_file = VectorIndex(rows.shape[1]), {}
                    self._index.add(np.arange(ids.start, ids.stop), rows)
                    self._ids_by_file[path] = ids
            self._state = state
            return self._index


def _read(path: Path) -> np.ndarray | None:
    """[n, E] float16; None if the file is gone or damaged."""
    try:
        return vector_file.unpack(path.read_bytes())[0]
    except (OSError, vector_file.DamagedVectorsError):
        return None
