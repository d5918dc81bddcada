"""Segments on disk, one file each. A segment that was put survives a crash, bit-exact.

Knows nothing of retrieval or questions, nor of who may write: the bank lets one process write.
Layout:
    <bank>/catalog.sqlite                                 the rows of videos and segments
    <bank>/segments/<video_id>/<number:06d>.safetensors   beside them video.json
    <bank>/window/<video_id>/                             quantized bank: while a video is written
    <bank>/text/                                          memory/text/store.py
    <bank>/embeddings/                                    memory/embeddings/store.py
    <bank>/encoded/                                       memory/encoded/encoded_store.py

The commit protocol. Order of `put`:
    0 in a quantized bank, the segment's block into the recent window
      (memory/storage/segments/recent_window.py)
    1 temporary file in the folder of the segment, fsync
    2 rename to its name, fsync of the folder; then, in the same way, the rows of further frame
      embedders, each in a file of its own (memory/embeddings/store.py)
    3 row in the catalog, committed with synchronous=FULL: from here on the segment exists
A crash after 1 leaves a temporary, after 2 a file without a row. Neither was acknowledged: nothing
reads it, `verify` lists it, the next writer's `sweep` deletes it, and putting the same segment
again replaces it. If a system call fails (full or broken disk), the put ends before 3 in the same
way. `put` returns only after 3; so does `bank.write`.
Between any two of these steps, a test can end the process: memory/storage/crash_points.py.

What is checked, and when. The row holds the seal of the file's header; the header holds the
checksums of its tensors (memory/storage/checksums.py). Every read compares the seal and the
checksums of the frames and tensors that it returns, no others. `verify` (memory/bank_check.py)
compares all of them, so every byte of every file.

A damaged segment can be dropped (`discard`): its row and file go, later segments stay, and the
number can be put again. Order: rows first, files last. A crash in between leaves files, which the
next writer deletes.

The beginning of a video can be deleted on purpose (`prune`). Order:
    1 video.json names the first remaining number: a rebuilt catalog then neither reports the
      deleted segments as missing nor reads leftovers of them
    2 rows, and the same number in the row of the video, in one transaction: from here on the
      segments do not exist
    3 files, those of text last
A crash before 2 leaves all segments; the next writer's `sweep` corrects video.json. A crash after
2 leaves files, as above.

So a crash leaves at most one whole file without a row that was not deleted on purpose. If there are
more, the catalog has lost rows or is another bank's: `sweep` deletes nothing and refuses.
"""

import math
import os
import re
import shutil
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from encoders.errors import UserError
from encoders.schema import CarriedFrame, KVBlock, Segment, VisualTokens
from memory.embeddings.store import EmbeddingStore
from memory.encoded.encoded_store import EncodedStore
from memory.schema import SegmentIndex
from memory.storage import crash_points, video_record
from memory.storage.atomic import (
    TEMPORARY,
    make_folder,
    remove_file,
    set_aside,
    sync_folder,
    write_atomically,
)
from memory.storage.catalog import Catalog, CatalogChanges, Pruned, SegmentRow, VideoRow
from memory.storage.catalog_writer import CatalogWriter
from memory.storage.database import Database
from memory.storage.file_access import lacks_rights, reason
from memory.storage.segments import replacement, segment_file
from memory.storage.segments.recent_window import RecentWindow
from memory.storage.segments.segment_codec import StorageFormat
from memory.storage.segments.side_rows import forget as forget_side_rows
from memory.text import rows as text_rows
from memory.text.store import TextStore

INDEX = "index"  # a cache of search rows, which a retriever knows (memory/retrieval/row_cache.py)
T = TypeVar("T")
_SAFE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")  # a video id becomes a folder


class DiskStore:
    """Segments of many videos under one folder.

    Parts: `catalog` and `catalog_writer` (rows), `window` (recent windows), `text`, `embeddings`,
    `encoded` (what questions had encoded).
    """

    def __init__(self, root: Path, storage_format: StorageFormat = segment_file.LOSSLESS) -> None:
        """storage_format: of new segments; a file itself says how to read it, but for the
        codebook."""
        self.root = Path(root)
        self.storage_format = storage_format
        self.window = RecentWindow(self.root / "window")
        make_folder(self.root / "segments")
        self.database = Database(self.root / "catalog.sqlite")
        self.catalog = Catalog(self.database)
        self.changes = CatalogChanges(self.database)
        self.catalog_writer = CatalogWriter(self.database)
        self.text = TextStore(self.root, self.database)
        self.embeddings = EmbeddingStore(self.root, self.database)
        self.encoded = EncodedStore(self.root, self.database)

    def path(self, video_id: str, number: int) -> Path:
        """The file of a segment."""
        if not _SAFE.fullmatch(video_id):
            raise ValueError(
                f"video id {video_id!r} cannot name a folder; use letters, digits, '.', '_' and '-'"
            )
        return self.root / "segments" / video_id / f"{number:06d}.safetensors"

    # ---- write

    def record(self, row: VideoRow) -> None:
        """Record a video durably. Its `pruned` stays as recorded before. A finished video loses its
        recent window."""
        before = self.catalog.video(row.info.video_id)
        row = replace(row, pruned=None if before is None else before.pruned)
        video_record.write(self.path(row.info.video_id, 0).parent, row)
        self.catalog_writer.put_video(row)
        if row.finished:
            self.window.drop(row.info.video_id)

    def put(self, segment: Segment) -> SegmentRow:
        """Store the next segment of its video, or a missing one; durable on return."""
        path = self.path(segment.video_id, segment.number)
        before = self._before(segment)
        data = segment_file.pack(segment, self.storage_format)
        make_folder(path.parent)
        window = self._put_block(segment)  # 0
        write_atomically(path, data)  # 1, 2
        seal = segment_file.seal(data)
        further = self.embeddings.write_files(
            segment.video_id, segment.number, seal, segment.further
        )
        row = SegmentRow(
            segment.video_id,
            segment.number,
            segment.start,
            segment.end,
            frames=len(segment),
            first=0 if before is None else before.stop,
            nbytes=len(data),
            checksum=seal,
            times=segment.times.cpu().numpy(),
            tokens=np.diff(segment.tokens.offsets.cpu().numpy()),
            wall=segment.wall,
            window=window,
        )
        self.catalog_writer.add_segment(row, further)  # 3
        self._trim_window(segment.video_id)
        return row

    def sweep(self) -> None:
        """Delete what a crash left behind. For the one writer, before it writes.
        CatalogDamagedError if the catalog lacks more segments than a crash can leave."""
        unlisted = self._unlisted()
        if len(unlisted) > 1:
            raise self.database.lost_rows_error(len(unlisted))
        for video_id in self.window.videos():
            self._trim_window(video_id)
        for folder in filter(Path.is_dir, (self.root / "segments").iterdir()):
            if folder.name.endswith(TEMPORARY):
                shutil.rmtree(folder)
                continue
            video = self.catalog.video(folder.name)
            keep = set() if video is None else {video_record.NAME}
            numbers = self.catalog.numbers(folder.name)
            for path in replacement.left_in(folder):
                row = self.catalog.segment(folder.name, int(path.stem))
                replacement.settle(path, None if row is None else row.checksum)
            keep |= {self.path(folder.name, number).name for number in numbers}
            for path in folder.iterdir():
                if path.name not in keep:
                    remove_file(path)
            if video is not None and video_record.read(folder) is not None:
                video_record.write(folder, video)  # `record` or `prune` ended before the row
            if video is None and not any(folder.iterdir()):
                folder.rmdir()
        self.text.sweep()
        self.embeddings.sweep()
        self.encoded.sweep()

    def _unlisted(self) -> list[Path]:
        """Whole segment files without a row: at most one, unless the catalog has lost rows or is
        another bank's. Those that were deleted on purpose do not count."""
        whole = []
        for folder in sorted(filter(Path.is_dir, (self.root / "segments").iterdir())):
            if folder.name.endswith(TEMPORARY):
                continue
            names = {f"{number:06d}" for number in self.catalog.numbers(folder.name)}
            paths = [path for path in folder.glob("*.safetensors") if path.stem not in names]
            if not paths:
                continue
            record = video_record.read(folder)
            begin = 0 if record is None or record.pruned is None else record.pruned.first
            whole += [path for path in paths if _is_whole(path, begin)]
        return whole

    def discard(self, video_id: str, numbers: Iterable[int]) -> None:
        """Delete segments of a video. It then counts as unfinished, and they can be put again."""
        numbers = list(numbers)
        self.catalog_writer.remove(video_id, numbers)
        crash_points.reached("rows removed")
        for number in numbers:
            path = self.path(video_id, number)
            if path.is_dir() and not path.is_symlink():
                set_aside(path)
            remove_file(path)
        if self.path(video_id, 0).parent.is_dir():
            sync_folder(self.path(video_id, 0).parent)
        self.embeddings.discard(video_id, numbers)
        self.encoded.discard(video_id, numbers)
        self._trim_window(video_id)

    def prune(self, video_id: str, first: int) -> None:
        """Delete the segments of a video before number `first`; they do not count as missing.
        KeyError if the video has no segment `first`."""
        video, row = self.catalog.video(video_id), self.catalog.segment(video_id, first)
        if video is None or row is None:
            raise KeyError((video_id, first))
        numbers = [number for number in self.catalog.numbers(video_id) if number < first]
        video = replace(video, pruned=Pruned(first, row.start))
        folder = self.path(video_id, 0).parent
        video_record.write(folder, video)  # 1
        with self.database.transaction() as db:  # 2
            self.catalog_writer.forget_before(db, video)
            text_rows.forget_before(db, video_id, row.start)
            forget_side_rows(db, video_id, numbers)
            crash_points.reached("rows")
        crash_points.reached("rows commit")
        for number in numbers:
            self.path(video_id, number).unlink(missing_ok=True)  # 3
            crash_points.reached("file")
        sync_folder(folder)
        crash_points.reached("sync files")
        self.text.sync_files(video_id)
        self.embeddings.discard(video_id, numbers)
        self.encoded.discard(video_id, numbers)

    def drop(self, video_id: str) -> None:
        """Delete a video.

        First video.json says that all of it is pruned. Then rows go: a crash in between leaves
        files, which the next writer deletes. The folder is renamed before it is deleted, so that a
        rebuilt catalog never contains half a video.
        """
        folder = self.path(video_id, 0).parent
        trash = folder.with_name(folder.name + TEMPORARY)
        video, (stop, end) = self.catalog.video(video_id), self.catalog.next(video_id)
        if video is not None and folder.is_dir():
            video_record.write(folder, replace(video, pruned=Pruned(stop, end)))
            crash_points.reached("video given up")
        with self.database.transaction() as db:
            self.catalog_writer.forget_video(db, video_id)
            text_rows.forget_video(db, video_id)
            forget_side_rows(db, video_id)
        crash_points.reached("video dropped")
        self.window.drop(video_id)
        self.text.drop(video_id)
        self.embeddings.drop(video_id)
        self.encoded.drop(video_id)
        if folder.exists():
            shutil.rmtree(trash, ignore_errors=True)
            os.replace(folder, trash)
            sync_folder(folder.parent)
            crash_points.reached("folder renamed")
            shutil.rmtree(trash)
            sync_folder(folder.parent)
            crash_points.reached("folder gone")

    # ---- read: UserError for a damaged file, KeyError for a segment that was never put

    def get(self, video_id: str, number: int) -> Segment:
        """The whole segment."""
        codebook = self.storage_format.codebook
        return self._read(
            video_id, number, lambda path, row: segment_file.read(path, row.checksum, codebook)
        )

    def frames(
        self, video_id: str, number: int, first: int, stop: int, *, kv: bool = True
    ) -> tuple[VisualTokens, KVBlock | None]:
        """Frames first..stop-1, counted within the segment; nothing else of the file is read. They
        have no tokens where the segment is still to be encoded (VisualTokens.is_planned)."""
        encoded = self.encoded.row_of(video_id, number)
        if encoded is not None:
            path = self.encoded.path_of(encoded)
            try:
                return segment_file.read_frames(
                    path,
                    first,
                    stop,
                    kv=kv,
                    expected_seal=encoded.seal,
                    codebook=self.storage_format.codebook,
                )
            except (OSError, segment_file.DamagedError) as error:
                is_gone = isinstance(error, FileNotFoundError)
                what = "missing" if is_gone else f"damaged ({error})"
                raise self._damage_error(path, what) from error
        return self._read(
            video_id,
            number,
            lambda path, row: segment_file.read_frames(
                path,
                first,
                stop,
                kv=kv,
                expected_seal=row.checksum,
                codebook=self.storage_format.codebook,
            ),
        )

    def thumbnails(
        self, video_id: str, number: int, frames: Sequence[int]
    ) -> tuple[bytes, ...] | None:
        """JPEGs of these frames, counted within the segment; None if it has none."""
        return self._read(
            video_id,
            number,
            lambda path, row: segment_file.read_thumbnails(path, frames, row.checksum),
        )

    def exact_kv(self, video_id: str, number: int, first: int, stop: int) -> KVBlock | None:
        """Keys and values of these frames as the encoder produced them. None if the recent window
        does not have them."""
        if not self.storage_format.keeps_window:
            return None
        if not self.window.has(video_id, number):
            return None
        try:
            return self.window.frames(
                video_id, number, first, stop, self._window_seal(video_id, number)
            )
        except (OSError, segment_file.DamagedError) as error:
            what = reason(error) if isinstance(error, OSError) else error
            raise self._damage_error(
                self.window.path(video_id, number), f"damaged ({what})"
            ) from error

    def window_problem(self, video_id: str, number: int) -> str | None:
        """What is wrong with a segment's block in the recent window; None if it is intact."""
        return self.window.problem(video_id, number, self._window_seal(video_id, number))

    def index(self, video_id: str, number: int, want: Set[str]) -> SegmentIndex:
        """The rows that a retriever indexes. want: names of the optional tensors to read, and keys
        of further frame embedders, whose rows may be missing."""
        index = self._read(
            video_id,
            number,
            lambda path, row: segment_file.read_index(
                path,
                row.first,
                want,
                expected_seal=row.checksum,
                codebook=self.storage_format.codebook,
            ),
        )
        further = want - segment_file.INDEX_TENSORS
        if not further:
            return index
        return replace(index, further=self.embeddings.read(video_id, number, further))

    def window_numbers(self, video_id: str) -> list[int]:
        """Numbers of the segments that a resumed encoder of this video starts from; none if it is
        finished, or if the bank keeps no window."""
        if not self.storage_format.keeps_window:
            return []
        video = self.catalog.video(video_id)
        if video is None or video.finished:
            return []
        rows = self.catalog.newest(video_id, self.storage_format.window_frames)
        return [row.number for row in rows]

    def close(self) -> None:
        self.database.close()

    # ---- inside

    def _before(self, segment: Segment) -> SegmentRow | None:
        """The row of the segment before this one; None for the first. ValueError if this segment is
        neither the next nor a missing one."""
        due, _ = self.catalog.next(segment.video_id)
        if segment.number == due:
            return self.catalog.segment(segment.video_id, due - 1)
        gap = next(
            (g for g in self.catalog.gaps(segment.video_id) if g.first == segment.number), None
        )
        if gap is None:
            raise ValueError(
                f"segment {segment.number} of video {segment.video_id} is out of turn: "
                f"{due} is next"
            )
        after = self.catalog.segment(segment.video_id, gap.stop)
        if after is not None and segment.times[-1] >= after.times[0]:
            raise UserError(
                f"segment {segment.number} of video {segment.video_id} would reach into segment "
                f"{gap.stop}, which is there already: the video gives other frames than it did; "
                "use another bank=DIR"
            )
        return self.catalog.segment(segment.video_id, segment.number - 1)

    def _window_seal(self, video_id: str, number: int) -> str | None:
        row = self.catalog.segment(video_id, number)
        return None if row is None else row.window

    def _put_block(self, segment: Segment) -> str | None:
        """Step 0. A segment that fills a gap keeps an existing block, or needs none: the segments
        after it were encoded with the original keys and values. Returns the seal of the block."""
        if not self.storage_format.keeps_window or segment.kv is None:
            return None
        video_id, number = segment.video_id, segment.number
        fills_gap = number + 1 < self.catalog.next(video_id)[0]
        if fills_gap:
            if number not in window_range(self.window_numbers(video_id)):
                return None
            seal = self.window.seal(video_id, number)
            if seal is not None:
                return seal
        return self.window.put(video_id, number, segment.kv)

    def _trim_window(self, video_id: str) -> None:
        self.window.keep_only(video_id, window_range(self.window_numbers(video_id)))

    def _read(
        self,
        video_id: str,
        number: int,
        read: Callable[[Path, SegmentRow], T],
        *,
        again: bool = True,
    ) -> T:
        """The result of `read` for an acknowledged segment."""
        row = self.catalog.segment(video_id, number)
        if row is None:
            self._refuse_pruned(video_id, number)
            raise KeyError((video_id, number))
        path = replacement.file_of(self.path(video_id, number), row.checksum)
        try:
            if path.stat().st_size != row.nbytes:
                raise segment_file.DamagedError(
                    f"it has {path.stat().st_size} bytes, not {row.nbytes}"
                )
            return read(path, row)
        except (OSError, segment_file.DamagedError) as error:
            self._refuse_pruned(video_id, number)
            if again and self._is_replaced(path, row):
                return self._read(video_id, number, read, again=False)
            text = reason(error) if isinstance(error, OSError) else error
            what = "missing" if isinstance(error, FileNotFoundError) else f"damaged ({text})"
            raise self._damage_error(path, what) from error

    def _is_replaced(self, path: Path, row: SegmentRow) -> bool:
        """Whether a segment's file was replaced between its row and the read."""
        now = self.catalog.segment(row.video_id, row.number)
        own = self.path(row.video_id, row.number)
        return now is not None and (
            now.checksum != row.checksum or replacement.file_of(own, row.checksum) != path
        )

    def _refuse_pruned(self, video_id: str, number: int) -> None:
        """UserError if another process pruned the segment between search and read."""
        video = self.catalog.video(video_id)
        if video is not None and video.pruned is not None and number < video.pruned.first:
            raise UserError(
                f"segment {number} of video {video_id} was pruned from bank {self.root} meanwhile; "
                "ask again"
            )

    def _damage_error(self, path: Path, what: str) -> UserError:
        return UserError(
            f"{path} is {what}; `reelbank bank action=verify bank={self.root}` lists all damage, "
            "action=repair mends it"
        )


def head_of(store: DiskStore, video_id: str, number: int) -> segment_file.Head:
    """What a segment's file says of itself. Errors as those of `DiskStore.get`."""
    return store._read(video_id, number, lambda path, row: segment_file.read_head(path))


def carried_of(store: DiskStore, video_id: str, number: int) -> CarriedFrame | None:
    """What a compressor carried on from this segment; None: nothing. Errors as those of
    `DiskStore.get`."""
    return store._read(
        video_id, number, lambda path, row: segment_file.read_carried(path, row.checksum)
    )


def root_of(store: DiskStore, video_id: str) -> Path:
    """The folder of the bank that has a video."""
    return store.path(video_id, 0).parents[2]


def index_folder(store: DiskStore, video_id: str) -> Path:
    """The folder with the saved search rows of a video, beside others."""
    return root_of(store, video_id) / INDEX


def _is_whole(path: Path, begin: int) -> bool:
    """True if the header of a segment's file fits the path and the number is not pruned."""
    try:
        head = segment_file.read_head(path)
    except (OSError, segment_file.DamagedError) as error:
        if isinstance(error, OSError) and lacks_rights(error):
            raise
        return False
    place = (path.parent.name, path.stem)
    return (head.video_id, f"{head.number:06d}") == place and head.number >= begin


def window_range(numbers: Sequence[int]) -> range:
    """A window's numbers and those between them: dropped segments, which may be put again."""
    return range(numbers[0], numbers[-1] + 1) if numbers else range(0)


def segment_end_time(store: DiskStore, row: SegmentRow) -> float:
    """Unix seconds at which a segment ended; without a wall-clock time, when its file was written;
    -inf if that file is gone."""
    if row.wall is not None:
        return row.wall + row.end - row.start
    try:
        return store.path(row.video_id, row.number).stat().st_mtime
    except FileNotFoundError:
        return -math.inf
