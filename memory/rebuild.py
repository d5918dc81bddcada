"""Rebuilds a lost catalog from the segment files, which describe themselves, and their video.json.

Knows nothing of retrieval, nor of who may write (the bank holds the lock). All rows come back,
except that unreadable files become gaps and no video counts as finished. Complete files that were
never acknowledged are included, and so are the text of videos (memory/text/store.py) and rows of
further frame embedders (memory/embeddings/store.py), and what questions had encoded
(memory/encoded/encoded_store.py). Recent windows
(memory/storage/segments/recent_window.py) stay as they are: a block is written before its segment,
so the last segment has one. A finished video has none, and `verify` lists its window as missing
until the next `ingest` has checked the video.
Order: 1 rows into a catalog with a temporary name, 2 move the old catalog and its log away, 3
rename. A crash before 3 leaves no catalog; the next opening starts again.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np

from encoders.errors import UserError
from encoders.schema import VideoInfo
from memory.embeddings import store as embeddings
from memory.embeddings.rows import EmbeddingRows
from memory.encoded import encoded_store
from memory.storage import manifest, video_record
from memory.storage.atomic import TEMPORARY, remove_file, set_aside, sync_folder
from memory.storage.catalog import Catalog, SegmentRow, VideoRow, row_problems
from memory.storage.catalog_writer import CatalogWriter
from memory.storage.database import CatalogDamagedError, Database
from memory.storage.file_access import DAMAGED, why_not_regular
from memory.storage.segments import replacement, segment_file
from memory.storage.segments.recent_window import RecentWindow
from memory.storage.segments.segment_file import Head
from memory.storage.segments.side_rows import ENCODED, SideRows
from memory.text import rows as text_rows
from memory.text import store, vectors
from memory.text.rows import TextRows

NAME = "catalog.sqlite"


def is_lost(root: Path) -> bool:
    """True if there are segments or text but no catalog, or only an empty file, which SQLite would
    treat as a new one."""
    path = root / NAME
    has_data = any((root / "segments").glob("*/*.safetensors")) or store.has_files(root)
    is_empty = path.is_file() and not path.stat().st_size
    return (is_empty or not os.path.lexists(path)) and has_data


def damage(root: Path) -> str | None:
    """The first problem of the catalog; None if it is intact or missing."""
    if not os.path.lexists(root / NAME):
        return None
    try:
        database = Database(root / NAME)
    except CatalogDamagedError as error:
        return str(error)
    try:
        problems = damage_of(database)
        if problems:
            return problems[0]
        return strangers(root, database) or text_rows.index_damage(database)
    finally:
        database.close()


def damage_of(database: Database) -> list[str]:
    """Problems of the database file and of its rows: of the catalog, of text, of embeddings."""
    try:
        problems = database.damage() + row_problems(Catalog(database))
        EmbeddingRows(database).rows()  # CatalogDamagedError for a row that is not as it was
        SideRows(database, ENCODED).rows()
        return problems + TextRows(database).damage()
    except UserError as error:
        return [str(error)]
    except (TypeError, ValueError) as error:  # a value of another type
        return [str(error)]


def strangers(root: Path, database: Database) -> str | None:
    """Why the catalog cannot be that of the segments: it lacks more of them than a crash can leave,
    or all of them differ from its rows. None if it can be."""
    catalog = Catalog(database)
    matching, differing, unlisted = 0, 0, 0
    for folder in _video_folders(root):
        seals = {row.number: row.checksum for row in catalog.segments(folder.name)}
        record = video_record.read(folder)
        begin = 0 if record is None or record.pruned is None else record.pruned.first
        for head, path in _heads(folder):
            if head.number in seals:
                seal = seals[head.number]
                is_same = segment_file.read_seal(replacement.file_of(path, seal)) == seal
                matching, differing = matching + is_same, differing + (not is_same)
            elif head.number >= begin:
                unlisted += 1
    if unlisted > 1:
        return f"it lacks {unlisted} segments: it is an older copy or another bank's"
    if differing > 1 and not matching:
        return "it is another bank's: no segment is as it says"
    return None


def is_due(root: Path, repair: bool) -> bool:
    """True if the catalog must be rebuilt. repair: also if it exists but is damaged."""
    return is_lost(root) or (repair and damage(root) is not None)


def mend(root: Path) -> None:
    """Repair a lost or damaged catalog: the index of words alone, or everything. For the one
    writer."""
    if not is_lost(root):
        with suppress(UserError, sqlite3.DatabaseError):
            _mend_index(root)
            if damage(root) is None:
                return
    rebuild(root)


def _mend_index(root: Path) -> None:
    database = Database(root / NAME)
    try:
        if not damage_of(database) and strangers(root, database) is None:
            TextRows(database).index_again()
    finally:
        database.close()


def rebuild(root: Path) -> None:
    """Replace a lost or damaged catalog by a new one. For the one writer."""
    path = root / NAME
    temporary = root / f"{NAME}.{os.getpid()}{TEMPORARY}"
    remove(temporary)
    database = Database(temporary)  # 1
    writer, text = CatalogWriter(database), TextRows(database)
    for folder in _video_folders(root):
        record = video_record.read(folder)
        # a crash while pruning can leave files of pruned segments; the next writer deletes them
        begin = 0 if record is None or record.pruned is None else record.pruned.first
        rows = list(_rows(folder, begin))
        if begin and not rows:
            continue  # a video that was being deleted
        video = record or _video_from_segments(folder.name, rows)
        seals = {row.number: row.checksum for row in rows}
        further = embeddings.read_rows(root, folder.name, seals)
        encoded = encoded_store.read_rows(root, folder.name, rows)
        writer.add_all([video] if video is not None else [], rows, further, encoded)
        if video is not None:
            pruned = 0.0 if video.pruned is None else video.pruned.start
            for block, seal in store.read_blocks(root, folder.name, pruned):
                text.add((block, seal))
    database.close()  # merges its log into the file
    if path.is_file() and not path.is_symlink():
        aside = root / f"{NAME}{DAMAGED}"
        if aside.is_dir():
            set_aside(aside)
        os.replace(path, aside)  # 2 keep it for inspection
    remove(path)  # SQLite would replay an old log into the new file
    handle = os.open(temporary, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)
    os.replace(temporary, path)  # 3
    sync_folder(root)


def remove(path: Path) -> None:
    """Delete a database with its log and its shared memory file."""
    for suffix in ("-wal", "-shm", ""):
        part = path.with_name(path.name + suffix)
        if part.is_dir() and not part.is_symlink():
            set_aside(part)
        remove_file(part)


def _video_folders(root: Path) -> Iterator[Path]:
    """The folders of videos, without those that were being deleted."""
    folders = filter(Path.is_dir, (root / "segments").iterdir())
    yield from sorted(folder for folder in folders if not folder.name.endswith(TEMPORARY))


def _heads(folder: Path) -> Iterator[tuple[Head, Path]]:
    """The readable files of one video, in time order. PermissionError: then a file may be whole."""
    paths = [path for path in folder.iterdir() if path.suffix == ".safetensors"]
    for path in sorted(paths, key=lambda path: (len(path.name), path.name)):
        try:
            head = segment_file.read_head(path)
        except PermissionError:
            raise
        except (OSError, segment_file.DamagedError):
            continue
        # otherwise a copy of another segment
        if (head.video_id, f"{head.number:06d}") == (folder.name, path.stem):
            yield head, path


def _rows(folder: Path, begin: int) -> Iterator[SegmentRow]:
    """Rows of the readable files of one video, from number `begin` on, in time order."""
    first = 0
    window = RecentWindow(folder.parent.parent / "window")
    for head, path in _heads(folder):
        if head.number < begin:
            continue
        try:
            times, offsets = segment_file.read_times(path)
        except (OSError, segment_file.DamagedError):
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
            window=window.seal(head.video_id, head.number),
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


def clear_ways(root: Path) -> list[tuple[Path, str]]:
    """Set aside what stands in the place of a folder of the bank, or of writer.lock. Returns each
    path with what stood there. UserError for a link that leads nowhere: its disk may be elsewhere.
    """
    cleared = []
    what = manifest.repair_lock(root)
    if what is not None:
        cleared.append((root / manifest.LOCK, what))
    for path in _folders(root):
        if path.is_dir() or not os.path.lexists(path):
            continue
        if path.is_symlink():
            raise UserError(
                f"{path} is a link that leads to no folder; mount its disk, or delete the link, "
                "and repair again"
            )
        set_aside(path)
        cleared.append((path, "a file stood in the place of this folder"))
    return cleared


def _folders(root: Path) -> Iterator[Path]:
    """The folders of a bank, those above first."""
    nested = (store.FOLDER, vectors.FOLDER, embeddings.FOLDER, encoded_store.FOLDER)
    for name in ("segments", "window", *nested, "index"):
        folder = root / name
        yield folder
        for part in sorted(folder.iterdir()) if folder.is_dir() else ():
            is_file = part.suffix in (".safetensors", TEMPORARY) or part.name == vectors.NAME
            if DAMAGED in part.name or is_file:
                continue
            yield part
            if name in nested and part.is_dir():
                yield from sorted(each for each in part.iterdir() if DAMAGED not in each.name)


def mend_manifest(root: Path) -> str | None:
    """Write bank.json again from the copy in the catalog. Returns what was wrong with it; None if
    nothing was. UserError if the catalog is not that of the bank or has no copy. For the one
    writer."""
    try:
        stored, what = manifest.read(root), "it was not that of the catalog"
    except manifest.ManifestDamagedError as error:
        stored, what = None, str(error)
    except UserError:
        raise  # of another format
    copy = _copy_of_manifest(root)
    if copy is None and stored is None:
        raise UserError(
            f"{root / manifest.NAME} is damaged or missing, and the catalog has no copy of it; "
            "bring it back from a backup, or encode the videos into another bank=DIR"
        )
    if stored is not None and copy in (None, stored):
        if manifest.is_as_written(root):
            return None
        copy, what = stored, "it was not as it was written"  # a blank or a line break
    assert copy is not None
    place = root / manifest.NAME
    if why_not_regular(place) is not None:
        set_aside(place) if place.is_dir() else remove_file(place)
    manifest.write(root, copy)
    return what


def _copy_of_manifest(root: Path) -> manifest.Values | None:
    """The copy in an intact catalog that is that of the segments."""
    if why_not_regular(root / NAME) is not None or not (root / NAME).exists():
        return None
    if damage(root) is not None:
        return None
    database = Database(root / NAME)
    try:
        return manifest.copy_in(database)
    finally:
        database.close()
