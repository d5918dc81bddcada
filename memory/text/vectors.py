"""Vectors of text lines on disk and in RAM: stored beside the lines and deleted with them.

Knows files, rows of the catalog and numbers; no model, only its name.
Layout:
    <bank>/vectors/<video_id>/<extractor>/<number:06d>-<seal of the text block>.vec
                                memory/text/vector_file.py
    <bank>/vectors/made_with    one line: the model of all vectors; touched at every write. Every
                                .vec names it too, under a checksum
The row of a block holds the checksum of its vectors' file. Every file is complete (temporary name,
fsync, rename). Its name holds the seal of its text: after a block was cut or extracted again, its
seal differs, and its vectors are missing until they are computed again. So no loss of vectors is
final.
"""

import os
import shutil
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from encoders.errors import UserError
from memory.storage import crash_points
from memory.storage.atomic import make_folder, remove_file, set_aside, write_atomically
from memory.storage.checksums import of_bytes
from memory.storage.file_access import read_bytes, reason, walk
from memory.text import vector_file
from memory.text.rows import BlockRow, RunRow, TextRows

if TYPE_CHECKING:
    from memory.text.vector_index import VectorIndex

FOLDER, NAME = "vectors", "made_with"


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
        """The name of the model of all vectors in the bank; None if it never had any. UserError if
        the file that names it is damaged."""
        path = self._root / NAME
        try:
            return read_bytes(path).decode().strip()
        except FileNotFoundError:
            if not os.path.lexists(path):
                return None
            what = "it is a link that leads nowhere"
        except OSError as error:
            what = reason(error)
        except UnicodeDecodeError:
            what = "it is not as it was written"
        raise self._model_error(what)

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
        if self.made_with != made_with:
            write_atomically(self._root / NAME, made_with.encode())
        data = vector_file.pack(rows, made_with)
        write_atomically(path, data)
        self._text_rows.seal_vectors(run, row, of_bytes(data))
        (self._root / NAME).touch()
        crash_points.reached("vectors")

    def require_model(self, made_with: str) -> None:
        """UserError if the bank has vectors of another model, or if their files do not agree."""
        before = self.made_with
        if before is None or before == made_with:
            return
        models = self._models()
        if not models:
            return  # the vectors of that model are gone
        if before not in models:
            what = f"the vectors are by another model than it says: {before}"
            raise self._model_error(what, ", before dense= can be used")
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

    def read(self, run: RunRow, row: BlockRow) -> np.ndarray | None:
        """[lines, E] float32 unit rows of a block's lines, in their order; None where there are no
        intact ones of the bank's model."""
        rows = _read(self.path(run.video_id, run.extractor, row), row, self.made_with)
        return None if rows is None else rows.astype(np.float32)

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
            if path.is_file() and path != self._root / NAME and path not in expected:
                path.unlink(missing_ok=True)

    def problems(self) -> Iterator[tuple[Path, str, str]]:
        """(file, problem, video id). The problem is "" for a leftover file, whose text is gone."""
        expected = self._expected(None)
        model = self._model()
        name = self._root / NAME
        what = self._model_problem(model)
        if what is not None:
            yield name, f"{what}; `repair` writes it again", ""
        for path, (run, row) in expected.items():
            # missing ones are no damage: a search says how many lines have none
            if os.path.lexists(path) and not self._is_intact(path, row, model):
                text = (
                    "the vectors of these lines are damaged; `repair` deletes them, "
                    "`reelbank ingest dense=` makes them again"
                )
                yield path, text, run.video_id
        for entry in walk(self._root):
            if entry.problem:
                yield entry.path, entry.problem, ""
            elif entry.path != name and entry.path not in expected:
                yield entry.path, "", ""

    def clear(self) -> list[tuple[Path, str, str]]:
        """Delete damaged files, and write the name of the model again; returns their problems."""
        damaged = [problem for problem in self.problems() if problem[1]]
        model, expected = self._model(), self._expected(None)
        for path, _, _ in damaged:
            if path.is_dir() and not path.is_symlink():
                set_aside(path)
            remove_file(path)
            if path in expected:
                self._text_rows.seal_vectors(*expected[path], None)
        if model is not None and self._model_problem(model) is not None:
            write_atomically(self._root / NAME, model.encode())
        return damaged

    @staticmethod
    def _is_intact(path: Path, row: BlockRow, model: str | None) -> bool:
        rows = _read(path, row, model)
        return rows is not None and len(rows) == row.lines

    def _models(self) -> Counter[str]:
        """The models that the intact vector files name."""
        models = Counter[str]()
        for path, (_, row) in self._expected(None).items():
            with suppress(OSError, vector_file.DamagedVectorsError):
                data = read_bytes(path)
                name = vector_file.unpack(data)[1]
                if row.vectors in (None, of_bytes(data)):
                    models[name] += 1
        return models

    def _model(self) -> str | None:
        """The model of most of the vectors; None if there are none."""
        most = self._models().most_common(1)
        return most[0][0] if most else None

    def _model_problem(self, model: str | None) -> str | None:
        """What is wrong with the file that names the model; None if nothing depends on it."""
        try:
            named = self.made_with
        except UserError:
            return "it cannot be read, or is not as it was written"
        if model is None or named == model:
            return None
        return "it is missing" if named is None else f"the vectors were made with {model}"

    def _model_error(self, what: str, until: str = "") -> UserError:
        return UserError(
            f"{self._root / NAME} is damaged ({what}); `reelbank bank action=repair "
            f"bank={self._bank}` writes it again{until}"
        )

    def _expected(self, video_id: str | None) -> dict[Path, tuple[RunRow, BlockRow]]:
        """The vector file of every block with lines, with its rows."""
        rows = self._text_rows
        return {
            self.path(run.video_id, run.extractor, row): (run, row)
            for run in rows.runs(video_id)
            for row in rows.blocks(run)
            if row.lines
        }

    def _synced_index(self) -> "VectorIndex | None":
        """The index, after taking in new files and removing the lines of deleted ones."""
        with self._lock:
            touched: int | None
            try:
                touched = (self._root / NAME).stat().st_mtime_ns
            except OSError:
                touched = None  # not 0: an archive may restore files with a time of 0
            state = (touched, self._text_rows.state())
            if state == self._state:
                return self._index
            model = self.made_with
            expected = {} if touched is None else self._expected(None)
            for path in [path for path in self._ids_by_file if path not in expected]:
                if self._index is not None:
                    self._index.remove(self._ids_by_file.pop(path))
            for path, (_, row) in expected.items():
                ids = range(row.first_id, row.stop_id)
                rows = None if path in self._ids_by_file else _read(path, row, model)
                if rows is not None and len(rows) == len(ids):
                    if self._index is None or self._index.width != rows.shape[1]:
                        from memory.text.vector_index import VectorIndex  # it imports FAISS

                        self._index, self._ids_by_file = VectorIndex(rows.shape[1]), {}
                    self._index.add(np.arange(ids.start, ids.stop), rows)
                    self._ids_by_file[path] = ids
            self._state = state
            return self._index


def _read(path: Path, row: BlockRow, model: str | None) -> np.ndarray | None:
    """[n, E] float16; None if the file is gone, damaged, of other lines or of another model."""
    try:
        data = read_bytes(path)
        rows, made_with = vector_file.unpack(data)
    except (OSError, vector_file.DamagedVectorsError):
        return None
    is_recorded = row.vectors in (None, of_bytes(data))
    return rows if is_recorded and made_with == model else None
