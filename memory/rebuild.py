"""Rebuild a catalog that was lost from the segment files, which describe themselves, and the video.json beside them.

Knows nothing of who may write (the bank holds the lock) and of retrieval. All that the catalog held comes back, except for
files that cannot be read, which become gaps, and whether a video is finished. A file that was whole but never acknowledged is
taken in, and so is the text of videos (memory/text/store.py). Recent windows (memory/storage/recent_window.py) stay as they are: a block was
written before its segment, so that of the last one is there. A video that was finished has none; until the next `ingest` has
looked, `verify` names it as missing.
Order: 1 the rows into a catalog under a temporary name, 2 the old catalog and its log out of the way, 3 rename.
A crash before 3 leaves no catalog, which the next opening finds and begins anew.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from encoders.schema import VideoInfo
from memory.storage import segment_file, video_record
from memory.storage.atomic import TEMPORARY, sync_folder
from memory.storage.catalog import SegmentRow, VideoRow
from memory.storage.catalog_writer import CatalogWriter
from memory.storage.database import CatalogDamagedError, Database
from memory.text import rows as text_rows
from memory.text import store
from memory.text.rows import TextRows

NAME = "catalog.sqlite"


def is_lost(root: Path) -> bool:
    """Whether there are segments or text but no catalog, or an empty file in its place (SQLite takes that for a new one)."""
    path = root / NAME
    kept = (any((root / "segments").glob("*/*.safetensors")), store.has_files(root))
    return not (path.exists() and path.stat().st_size) and any(kept)


def damage(root: Path) -> str | None:
    """What is wrong with the catalog itself; None when it is sound, or not there."""
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
    """Whether the catalog is to be rebuilt. repair: also if it is there but damaged."""
    return is_lost(root) or (repair and damage(root) is not None)


def rebuild(root: Path) -> None:
    """Put a new catalog in the place of a lost or damaged one. For the one writer."""
    path = root / NAME
    temporary = root / f"{NAME}.{os.getpid()}{TEMPORARY}"
    remove(temporary)
    database = Database(temporary)  # 1
    writer, text = CatalogWriter(database), TextRows(database)
    for folder in sorted(filter(Path.is_dir, (root / "segments").iterdir())):
        if folder.name.endswith(TEMPORARY):
            continue  # of a video that was being deleted
        told = video_record.read(folder)
        # files of segments that were pruned are left where a crash came in between: the next writer deletes them
        begin = 0 if told is None or told.pruned is None else told.pruned.first
        rows = list(_rows(folder, begin))
        video = told or _video_from_segments(folder.name, rows)
        writer.add_all([video] if video is not None else [], rows)
        if video is not None:
            pruned = 0.0 if video.pruned is None else video.pruned.start
            for block, seal in store.read_blocks(root, folder.name, pruned):
                text.add(block, seal)
    database.close()  # takes its log in
    if path.exists():
        os.replace(path, root / f"{NAME}.damaged")  # 2 kept: somebody may want to look at it
    remove(path)  # a log that is left would be played into the new file
    handle = os.open(temporary, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)
    os.replace(temporary, path)  # 3
    sync_folder(root)


def remove(path: Path) -> None:
    """Delete a database with its log and its shared memory."""
    for suffix in ("-wal", "-shm", ""):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _rows(folder: Path, begin: int) -> Iterator[SegmentRow]:
    """Rows of the files of one video that can be read, from number `begin` on, in time order."""
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
    """What the segments alone say of their video: not its path, and not whether it goes on."""
    if not rows:
        return None
    # a segment ends one interval after its last frame
    interval = rows[0].end - float(rows[0].times[-1])
    info = VideoInfo(
        video_id, "", rows[-1].end, "", note="the catalog was lost; this was read from the segments"
    )
    return VideoRow(info, interval, finished=False)
