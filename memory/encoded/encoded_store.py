"""Segments that questions had encoded, beside those that hold frame embeddings alone.

A bank that encodes on demand (`visual_tokens=on_demand`) writes segments without visual tokens,
keys and values. A question that reads a segment has it encoded, and this store keeps it. Layout:
    <bank>/encoded/<video_id>/<key of the settings>/<number:06d>.safetensors
A file is what an encoding bank has in segments/, without thumbnails, byte for byte. The key names
the model and holds a hash of all that bank.json records, so a file says how it came about. The
protocol is that of memory/storage/segments/side_files.py: file first, row then.

Knows files and rows of the catalog; no model, nor who may write.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from encoders.schema import Segment
from memory.storage import crash_points
from memory.storage.atomic import make_folder, write_atomically
from memory.storage.catalog import Catalog, SegmentRow
from memory.storage.database import Database
from memory.storage.manifest import Provenance
from memory.storage.segments import segment_file, side_rows
from memory.storage.segments.segment_codec import StorageFormat
from memory.storage.segments.side_files import SideFiles
from memory.storage.segments.side_rows import ENCODED, SideRow, SideRows
from memory.storage.segments.tensor_file import DamagedError

FOLDER = "encoded"
# what the provenance of such a bank has beside that of others
NAME, ON_DEMAND, IN_BLOCKS = "visual_tokens", "on demand", "on demand, in blocks"


def settings_key(provenance: Provenance) -> str | None:
    """The key of a bank's settings; None for a bank whose segments come encoded."""
    if provenance.get(NAME) not in (ON_DEMAND, IN_BLOCKS):
        return None
    text = json.dumps(dict(provenance), sort_keys=True)
    model = re.sub(r"[^A-Za-z0-9._]", "_", str(provenance.get("model")))
    return f"{model}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


class EncodedStore(SideFiles):
    """The encoded segments of many videos under one folder."""

    def __init__(self, root: Path, database: Database) -> None:
        self.settings: str | None = None
        self._database = database
        self.rows = SideRows(database, ENCODED)
        super().__init__(root / FOLDER, self.rows, Catalog(database))

    def use(self, settings: str | None) -> None:
        """settings: key of those with which questions encode; None: the bank's segments come
        encoded, and nothing is here."""
        self.settings = settings

    def put(self, segment: Segment, storage_format: StorageFormat) -> int:
        """Store what a stored segment is encoded to; durable on return. Returns the bytes of its
        file. ValueError if it does not fit, KeyError if there is no such segment."""
        if self.settings is None:
            raise ValueError("the segments of this bank come encoded")
        stored = self._catalog.segment(segment.video_id, segment.number)
        if stored is None:
            raise KeyError((segment.video_id, segment.number))
        if segment.tokens.is_planned or not np.array_equal(segment.times.numpy(), stored.times):
            raise ValueError("its frames are not those of the stored segment")
        data = segment_file.pack(replace(segment, thumbnails=None), storage_format)
        path = self.path(segment.video_id, self.settings, segment.number)
        make_folder(path.parent)
        write_atomically(path, data)
        seal = segment_file.seal(data)
        row = SideRow(
            segment.video_id, self.settings, segment.number, stored.checksum, len(data), seal
        )
        with self._database.transaction() as db:
            side_rows.add(db, ENCODED, [row])
            crash_points.reached("encoded row")
        crash_points.reached("encoded commit")
        return len(data)

    def row_of(self, video_id: str, number: int) -> SideRow | None:
        """The row of a segment; None if it is still to be encoded, or comes encoded."""
        if self.settings is None:
            return None
        row = self.rows.row(video_id, self.settings, number)
        stored = None if row is None else self._catalog.segment(video_id, number)
        return row if row is not None and stored and stored.checksum == row.segment else None

    def missing(self, video_id: str, numbers: Iterable[int] | None = None) -> list[int]:
        """Those of the segments that are still to be encoded, ascending. numbers: None for all."""
        if self.settings is None:
            return []
        if numbers is None:
            return self.rows.missing(video_id, self.settings)
        return [each for each in sorted(set(numbers)) if self.row_of(video_id, each) is None]

    def costs(self, row: SideRow) -> np.ndarray:
        """[T] visual tokens of each frame of a segment, from the file of its row."""
        try:
            return np.diff(segment_file.read_times(self.path_of(row))[1].numpy())
        except (OSError, DamagedError):  # the reader of the frames says what is wrong
            return np.empty(0, np.int64)

    def _frames_in(self, path: Path, row: SideRow) -> int:
        segment_file.check(path, row.seal)
        return len(segment_file.read_times(path)[0])


def read_rows(root: Path, video_id: str, segments: Sequence[SegmentRow]) -> list[SideRow]:
    """A row for each undamaged file of a video whose segment is there; they rebuild a catalog.
    PermissionError: then a file may be whole."""
    rows, by_number = [], {row.number: row for row in segments}
    folder = root / FOLDER / video_id
    for part in sorted(filter(Path.is_dir, folder.iterdir())) if folder.is_dir() else ():
        for path in sorted(path for path in part.iterdir() if path.suffix == ".safetensors"):
            try:
                head, seal = segment_file.read_head(path), segment_file.read_seal(path)
                times = segment_file.read_times(path)[0].numpy()
            except PermissionError:
                raise
            except (OSError, DamagedError):
                continue
            stored = by_number.get(head.number)
            is_there = (head.video_id, f"{head.number:06d}") == (video_id, path.stem)
            if is_there and stored is not None and np.array_equal(times, stored.times):
                nbytes = path.stat().st_size
                rows.append(
                    SideRow(video_id, part.name, head.number, stored.checksum, nbytes, seal)
                )
    return rows
