"""Rows of further frame embedders on disk, beside the segments: durable, and bit-exact.

Knows files and rows of the catalog; no embedder, no search, nor who may write. Layout:
    <bank>/embeddings/<video_id>/<key of the embedder>/<number:06d>.safetensors
The key begins with the embedder's name and holds the hash of its weights, so rows of two embedders
never mix, and an embedder may be added to a bank at any time. Segment files stay as they are.

Rows that come with a new segment are written before its row in the catalog, and acknowledged in the
same transaction: a segment that is acknowledged has them. Rows that are added later are written
first and acknowledged then, segment by segment. A crash leaves files without a row: `verify` lists
them, and the next writer deletes them. Files and rows of a segment go with it.
"""

import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from memory.embeddings import embedding_file
from memory.embeddings.embedding_file import DamagedError, Head
from memory.embeddings.rows import EmbeddingRow, EmbeddingRows
from memory.storage import crash_points
from memory.storage.atomic import (
    TEMPORARY,
    make_folder,
    remove_file,
    set_aside,
    sync_folder,
    write_atomically,
)
from memory.storage.catalog import Catalog
from memory.storage.database import Database
from memory.storage.file_access import reason, walk

FOLDER = "embeddings"


@dataclass(frozen=True, slots=True)
class EmbeddingProblem:
    """A damaged or missing file, or a leftover one."""

    path: Path
    text: str
    video_id: str = ""
    orphan: bool = False
    temporary: bool = False


class EmbeddingStore:
    """The rows of many videos under one folder."""

    def __init__(self, root: Path, database: Database) -> None:
        self._root = root / FOLDER
        self._catalog = Catalog(database)
        self.rows = EmbeddingRows(database)

    def path(self, video_id: str, embedder: str, number: int) -> Path:
        """The file of a segment's rows."""
        return self._root / video_id / embedder / f"{number:06d}.safetensors"

    # ---- write

    def write_files(
        self, video_id: str, number: int, segment: str, embeddings: Mapping[str, Tensor]
    ) -> list[EmbeddingRow]:
        """Write the files of a segment; durable on return, and nothing until its rows are in the
        catalog. segment: its seal. embeddings: key -> [T, E] float16."""
        rows = []
        for embedder, tensor in sorted(embeddings.items()):
            path = self.path(video_id, embedder, number)
            data = embedding_file.pack(Head(video_id, number, embedder, segment), tensor)
            make_folder(path.parent)
            write_atomically(path, data)
            seal = embedding_file.seal(data)
            rows.append(EmbeddingRow(video_id, embedder, number, segment, len(data), seal))
        return rows

    def put(self, video_id: str, number: int, embedder: str, tensor: Tensor) -> None:
        """Store rows of a stored segment: [T, E] float16; durable on return. ValueError if they do
        not fit its frames, KeyError if there is no such segment."""
        segment = self._catalog.segment(video_id, number)
        if segment is None:
            raise KeyError((video_id, number))
        if len(tensor) != segment.frames:
            raise ValueError(f"{len(tensor)} rows for {segment.frames} frames")
        (row,) = self.write_files(video_id, number, segment.checksum, {embedder: tensor})
        self.rows.add(row)
        crash_points.reached("embedding row")

    def discard(self, video_id: str, numbers: Iterable[int]) -> None:
        """Delete the files of segments whose rows are deleted."""
        numbers = set(numbers)
        for folder in self._folders(video_id):
            for number in numbers:
                remove_file(self.path(video_id, folder.name, number))
            sync_folder(folder)

    def drop(self, video_id: str) -> None:
        """Delete the files of a video whose rows are deleted."""
        folder = self._root / video_id
        if folder.exists():
            shutil.rmtree(folder)
            crash_points.reached("embeddings gone")

    def sweep(self) -> None:
        """Delete what a crash left behind, and rows of segments that are gone or have other bytes.
        For the one writer, before it writes."""
        self.rows.remove_outdated()
        if not self._root.is_dir():
            return
        for folder in filter(Path.is_dir, self._root.iterdir()):
            expected = {self.path_of(row) for row in self.rows.rows(folder.name)}
            for part in filter(Path.is_dir, folder.iterdir()):
                for path in part.iterdir():
                    if path not in expected:
                        remove_file(path)
                if not any(part.iterdir()):
                    part.rmdir()
            if not any(folder.iterdir()):
                folder.rmdir()

    # ---- read

    def read(self, video_id: str, number: int, embedders: Iterable[str]) -> dict[str, Tensor]:
        """Key -> [T, E] float16 of a segment, of those embedders that have undamaged rows of it."""
        found: dict[str, Tensor] = {}
        for embedder in embedders:
            row = self.rows.row(video_id, embedder, number)
            if row is not None:
                with suppress(OSError, DamagedError):
                    found[embedder] = embedding_file.read(self.path_of(row), row.seal)
        return found

    def path_of(self, row: EmbeddingRow) -> Path:
        """The file of a row."""
        return self.path(row.video_id, row.embedder, row.number)

    def nbytes(self, video_id: str) -> int:
        """Bytes of a video's files."""
        return sum(self.rows.nbytes(video_id).values())

    # ---- check

    def verify(self) -> Iterator[EmbeddingProblem]:
        """Read every file and compare it with the rows."""
        expected = set()
        for row in self.rows.rows():
            expected.add(self.path_of(row))
            what = self._problem(row)
            if what:
                yield EmbeddingProblem(self.path_of(row), what, row.video_id)
        for entry in walk(self._root):
            if entry.problem:
                yield EmbeddingProblem(entry.path, entry.problem)
            elif entry.path not in expected:
                is_temporary = entry.path.name.endswith(TEMPORARY)
                what = "a write was cut off" if is_temporary else "never acknowledged"
                yield EmbeddingProblem(
                    entry.path,
                    f"{what}; the next writer deletes this file",
                    orphan=not is_temporary,
                    temporary=is_temporary,
                )

    def clear(self) -> list[EmbeddingProblem]:
        """Delete damaged files with their rows: they can be made again from the film. Returns the
        problems that this solved."""
        damaged = [(row, what) for row in self.rows.rows() if (what := self._problem(row))]
        for row, _ in damaged:
            path = self.path_of(row)
            if path.is_dir() and not path.is_symlink():
                set_aside(path)
            remove_file(path)
        self.rows.remove(row for row, _ in damaged)
        return [EmbeddingProblem(self.path_of(row), what, row.video_id) for row, what in damaged]

    def _problem(self, row: EmbeddingRow) -> str:
        try:
            tensor = embedding_file.read(self.path_of(row), row.seal)
        except FileNotFoundError:
            return "the file of acknowledged rows is gone"
        except OSError as error:
            return reason(error)
        except DamagedError as error:
            return str(error)
        segment = self._catalog.segment(row.video_id, row.number)
        fits = segment is not None and len(tensor) == segment.frames
        return "" if fits else "its rows are not those of the segment's frames"

    def _folders(self, video_id: str) -> list[Path]:
        """Folders of the embedders of a video."""
        folder = self._root / video_id
        return sorted(filter(Path.is_dir, folder.iterdir())) if folder.is_dir() else []


def embedders_in(root: Path) -> set[str]:
    """Keys of the further embedders whose rows a bank has, without opening it."""
    return {path.name for path in (root / FOLDER).glob("*/*") if path.is_dir()}


def read_rows(root: Path, video_id: str, segments: Mapping[int, str]) -> list[EmbeddingRow]:
    """A row for each undamaged file of a video whose segment is there; they rebuild a catalog.
    segments: number -> seal. PermissionError: then a file may be whole."""
    rows = []
    folder = root / FOLDER / video_id
    for part in sorted(filter(Path.is_dir, folder.iterdir())) if folder.is_dir() else ():
        for path in sorted(path for path in part.iterdir() if path.suffix == ".safetensors"):
            try:
                head, seal = embedding_file.read_head(path)
            except PermissionError:
                raise
            except (OSError, DamagedError):
                continue
            place = (head.video_id, head.embedder, f"{head.number:06d}")
            if place != (video_id, part.name, path.stem):
                continue
            if segments.get(head.number) == head.segment:
                nbytes = path.stat().st_size
                rows.append(
                    EmbeddingRow(video_id, part.name, head.number, head.segment, nbytes, seal)
                )
    return rows
