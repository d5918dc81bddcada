"""Rows of further frame embedders on disk, beside the segments: durable, and bit-exact.

Knows files and rows of the catalog; no embedder, no search, nor who may write. Layout:
    <bank>/embeddings/<video_id>/<key of the embedder>/<number:06d>.safetensors
The key begins with the embedder's name and holds the hash of its weights, so rows of two embedders
never mix, and an embedder may be added to a bank at any time. Segment files stay as they are.

Rows that come with a new segment are written before its row in the catalog, and acknowledged in the
same transaction: a segment that is acknowledged has them. Rows that are added later are written
first and acknowledged then, segment by segment (memory/storage/segments/side_files.py).
"""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from torch import Tensor

from memory.embeddings import embedding_file
from memory.embeddings.embedding_file import DamagedError, Head
from memory.embeddings.rows import EmbeddingRows
from memory.storage import crash_points
from memory.storage.atomic import make_folder, write_atomically
from memory.storage.catalog import Catalog
from memory.storage.database import Database
from memory.storage.segments.side_files import SideFiles, SideProblem
from memory.storage.segments.side_rows import SideRow

FOLDER = "embeddings"
EmbeddingProblem = SideProblem  # of any file beside a segment


class EmbeddingStore(SideFiles):
    """The rows of many videos under one folder."""

    def __init__(self, root: Path, database: Database) -> None:
        self.rows = EmbeddingRows(database)
        super().__init__(root / FOLDER, self.rows, Catalog(database))

    # ---- write

    def write_files(
        self, video_id: str, number: int, segment: str, embeddings: Mapping[str, Tensor]
    ) -> list[SideRow]:
        """Write the files of a segment; durable on return, and nothing until its rows are in the
        catalog. segment: its seal. embeddings: key -> [T, E] float16."""
        rows = []
        for embedder, tensor in sorted(embeddings.items()):
            path = self.path(video_id, embedder, number)
            data = embedding_file.pack(Head(video_id, number, embedder, segment), tensor)
            make_folder(path.parent)
            write_atomically(path, data)
            seal = embedding_file.seal(data)
            rows.append(SideRow(video_id, embedder, number, segment, len(data), seal))
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

    def _frames_in(self, path: Path, row: SideRow) -> int:
        return len(embedding_file.read(path, row.seal))


def embedders_in(root: Path) -> set[str]:
    """Keys of the further embedders whose rows a bank has, without opening it."""
    return {path.name for path in (root / FOLDER).glob("*/*") if path.is_dir()}


def read_rows(root: Path, video_id: str, segments: Mapping[int, str]) -> list[SideRow]:
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
                rows.append(SideRow(video_id, part.name, head.number, head.segment, nbytes, seal))
    return rows
