"""Rebuilds a lost catalog from the segment files, which describe themselves, and their video.json.

Knows nothing of retrieval, nor of who may write (the bank holds the lock). All rows come back,
except that unreadable files become gaps and no video counts as finished. Complete files that were
never acknowledged are included, and so is the text of videos (memory/text/store.py). Recent windows
(memory/storage/segments/recent_window.py) stay as they are: a block is written before its segment,
so the last segment has one. A finished video has none, and `verify` lists its window as missing
until the next `ingest` has checked the video.
Order: 1 rows into a catalog with a temporary name, 2 move the old catalog and its log away, 3
rename. A crash before 3 leaves no catalog; the next opening starts again.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from encoders.schema import VideoInfo
from memory.storage import video_record
from memory.storage.atomic import TEMPORARY, sync_folder
from memory.storage.catalog import SegmentRow, VideoRow
from memory.storage.catalog_writer import CatalogWriter
from memory.storage.database import CatalogDamagedError, Database
from memory.storage.segments import segment_file
from memory.text import rows as text_rows
from memory.text import store
from memory.text.rows import TextRows

NAME = "catalog.sqlite"


def is_lost(root: Path) -> bool:
    """True if there are segments or text but no catalog, or only an empty file, which SQLite would
    treat as a new one."""
    path = root / NAME
    has_data = any((root / "segments").glob("*/*.safetensors")) or store.has_files(root)
    return not (path.exists() and path.stat().st_size) and has_data


def damage(root: Path) -> str | None:
    """The first problem of the catalog; None if it is intact or missing."""
    if not (root / NAME).exists():
        return None
    try:
        database = Database(root / NAME)
        problems = text_rows.damage_of(database)
        database.close()
        return problems[0] if problems else None
    except CatalogDamagedError as error:
        return str(error)


def is_due(root: Path, repair: bool) -> bool:
    """True if the catalog must be rebuilt. repair: also if it exists but is damaged."""
    return is_lost(root) or (repair and damage(root) is not None)


def rebuild(root: Path) -> None:
    """Replace a lost or damaged catalog by a new one. For the one writer."""
    path = root / NAME
    temporary = root / f"{NAME}.{os.getpid()}{TEMPORARY}"
    remove(temporary)
    database = Database(temporary)  # 1
    writer, text = CatalogWriter(database), TextRows(database)
    for folder in sorted(filter(Path.is_dir, (root / "segments").iterdir())):
        if folder.name.endswith(TEMPORARY):
            continue  # a video that was being deleted
        record = video_record.read(folder)
        # a crash while pruning can leave files of pruned segments; the next writer deletes them
        begin = 0 if record is None or record.pruned is None else record.pruned.first
        rows = list(_rows(folder, begin))
        video = record or _video_from_segments(folder.name, rows)
        writer.add_all([video] if video is not None else [], rows)
        if video is not None:
            pruned = 0.0 if video.pruned is None else video.pruned.start
            for block, seal in store.read_blocks(root, folder.name, pruned):
                text.add(block, seal)
    database.close()  # merges its log into the file
    if path.exists():
        os.replace(path, root / f"{NAME}.damaged")  # 2 keep it for inspection
    remove(path)  # SQLite would replay an old log into the new file
    handle = os.open(temporary, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)
    os.replace(temporary, path)  # 3
    sync_folder(root)


def remove(path: Path) -> None:
    """Delete a database with its log and its shared memory file."""
    for suffix in ("-wal", "-shm", ""):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _rows(folder: Path, begin: int) -> Iterator[SegmentRow]:
    """Rows of the readable files of one video, from number `begin` on, in time order."""
    first = 0
    for path in sorted(folder.glob("*.safetensors"), key=lambda path: (len(path.name), path.name)):
        try:
            head = segment_file.read_head(path)
            times, offsets = segment_file.read_times(path)
        except (OSError, segment_file.DamagedError):
            continue
        if (head.video_id, f"{head.number:06d}") != (folder.name, path.stem):
            continue  # a copy of another segment
        if head.number < begin:
            continue
        yield SegmentRow(
            head.video_id,
            head.number,
            head.start,
            head.end,
            frames=len(times),
            first=first,
            nbytes=path.stat().st_size,
            checksum=segment_file.read_seal(path),
            times=times.numpy(),
            tokens=np.diff(offsets.numpy()),
            wall=head.wall,
        )
        first += len(times)


def _video_from_segments(video_id: str, rows: list[SegmentRow]) -> VideoRow | None:
    """The row of a video from its segments alone: without its path, and unfinished."""
    if not rows:
        return None
    # a segment ends one interval after its last frame
    interval = rows[0].end - float(rows[0].times[-1])
    info = VideoInfo(
        video_id, "", rows[-1].end, "", note="the catalog was lost; this was read from the segments"
    )
    return VideoRow(info, interval, finished=False)
