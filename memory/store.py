"""Segments on disk, one file each, and the promise that a segment once put survives a crash, bit-exact.

Knows nothing of retrieval, of questions or of who may write (the bank sees to it that only one process does).
Layout:  <bank>/catalog.sqlite, <bank>/segments/<video_id>/<number:06d>.safetensors, beside them video.json; in a quantised
bank <bank>/window/<video_id>/ while a video is written; words of videos in <bank>/text/ (memory/text/store.py)

The commit protocol. Order of `put`:
    0 in a quantised bank, the segment's block into the recent window      memory/storage/recent_window.py
    1 temporary file in the folder of the segment, fsync
    2 rename to its name, fsync of the folder
    3 row in the catalog, committed with synchronous=FULL: from here on the segment exists
A crash after 1 leaves a temporary, after 2 a file without a row. Neither was acknowledged: nobody reads it, `verify`
names it, the next writer's `sweep` deletes it, and putting the same segment again replaces it. A system call that fails
(full disk, broken disk) ends the put before 3 in the same way. `put` returns only after 3; so does `bank.write`.
Between any two of these steps `memory/storage/crash_points.py` lets a test end the process.

What is checked when. The row holds the seal of the file's header, the header the sums of its tensors (memory/storage/checksums.py).
Every read compares the seal, and the sums of the frames and tensors that it hands out, no others; `verify` compares all
of them, so every byte of every file.

A damaged segment can be dropped (`discard`): number and file are gone, later segments stay, and the number can be put
again. Order: rows first, files last; a crash in between leaves files that the next writer deletes.

The beginning of a video can be deleted on purpose (`prune`). Order:
    1 video.json says which number is the first now: a catalog that is rebuilt neither misses what was before it nor takes it in
    2 rows, and the same in the row of the video, in one transaction: from here on the segments do not exist
    3 files, those of text last
A crash before 2 leaves all segments; the next writer's `sweep` puts video.json right. One after it leaves files, as above.
"""

import math
import os
import re
import shutil
from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from encoders.errors import UserError
from encoders.schema import KVBlock, Segment, VisualTokens
from memory.schema import SegmentIndex
from memory.storage import crash_points, segment_file, video_record
from memory.storage.atomic import TEMPORARY, make_folder, sync_folder, write_atomically
from memory.storage.catalog import Catalog, Pruned, SegmentRow, VideoRow
from memory.storage.database import Database
from memory.storage.recent_window import RecentWindow
from memory.storage.segment_codec import StorageFormat
from memory.text import rows as text_rows
from memory.text.store import TextProblem, TextStore

T = TypeVar("T")
_SAFE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")  # a video id becomes a folder


@dataclass(frozen=True, slots=True)
class Problem:
    """Something `verify` found."""

    # something is lost: missing, size, checksum, gap, catalog, video, window, text; harmless: orphan, temporary
    kind: str
    path: Path
    text: str
    video_id: str = ""
    number: int | None = None  # of the segment that is damaged, where it is one

    @property
    def harmless(self) -> bool:
        """Left by a crash and never acknowledged."""
        return self.kind in ("orphan", "temporary")

    def __str__(self) -> str:
        return f"{self.path}: {self.text}"


class DiskStore:
    """Segments of many videos under one folder."""

    def __init__(self, root: Path, storage_format: StorageFormat = segment_file.LOSSLESS) -> None:
        self._root = Path(root)
        self.storage_format = storage_format  # of what is put; a file says itself how to read it
        self.window = RecentWindow(self._root / "window")
        make_folder(self._root / "segments")
        self.database = Database(self._root / "catalog.sqlite")
        self.catalog = Catalog(self.database)
        self.text = TextStore(self._root, self.database)

    def path(self, video_id: str, number: int) -> Path:
        """Where a segment is kept."""
        if not _SAFE.fullmatch(video_id):
            raise ValueError(
                f"video id {video_id!r} cannot name a folder; use letters, digits, '.', '_' and '-'"
            )
        return self._root / "segments" / video_id / f"{number:06d}.safetensors"

    def record(self, row: VideoRow) -> None:
        """Keep what is known of a video; what was pruned of it stays as it is. When it is finished, its recent window goes."""
        known = self.catalog.video(row.info.video_id)
        row = replace(row, pruned=None if known is None else known.pruned)
        video_record.write(self.path(row.info.video_id, 0).parent, row)
        self.catalog.put_video(row)
        if row.finished:
            self.window.drop(row.info.video_id)

    def put(self, segment: Segment) -> SegmentRow:
        """Keep the next segment of its video, or one that is missing. When this returns, it is durable."""
        path = self.path(segment.video_id, segment.number)
        before = self._before(segment)
        data = segment_file.pack(segment, self.storage_format)
        make_folder(path.parent)
        self._put_block(segment)  # 0
        write_atomically(path, data)  # 1, 2
        row = SegmentRow(
            segment.video_id,
            segment.number,
            segment.start,
            segment.end,
            frames=len(segment),
            first=0 if before is None else before.stop,
            nbytes=len(data),
            checksum=segment_file.seal(data),
            times=segment.times.cpu().numpy(),
            tokens=np.diff(segment.tokens.offsets.cpu().numpy()),
            wall=segment.wall,
        )
        self.catalog.add_segment(row)  # 3
        self.window.keep(segment.video_id, self._window_of(segment.video_id))
        return row

    def get(self, video_id: str, number: int) -> Segment:
        return self._read(video_id, number, lambda path, row: segment_file.read(path, row.checksum))

    def frames(
        self, video_id: str, number: int, first: int, stop: int, *, kv: bool = True
    ) -> tuple[VisualTokens, KVBlock | None]:
        """Frames first..stop-1, counted within the segment; nothing else of the file is read."""
        return self._read(
            video_id,
            number,
            lambda path, row: segment_file.read_frames(
                path, first, stop, kv=kv, sealed=row.checksum
            ),
        )

    def exact_kv(self, video_id: str, number: int, first: int, stop: int) -> KVBlock | None:
        """Keys and values of these frames as they were made; None when they are not (or no longer) in the recent window.
        UserError when they are damaged."""
        if not self.storage_format.keeps_window:
            return None
        try:
            return self.window.frames(video_id, number, first, stop)
        except (OSError, segment_file.DamagedError) as error:
            raise self._damage_error(
                self.window.path(video_id, number), f"damaged ({error})"
            ) from error

    def index(self, video_id: str, number: int, want: Set[str]) -> SegmentIndex:
        """The rows that a retriever takes in."""
        return self._read(
            video_id,
            number,
            lambda path, row: segment_file.read_index(path, row.first, want, sealed=row.checksum),
        )

    def numbers(self, video_id: str) -> list[int]:
        return self.catalog.numbers(video_id)

    def verify(self) -> list[Problem]:
        """Read every file and say what is wrong. A segment that is just being put may be called an orphan."""
        folders = (self._root / "segments", self.window.root)
        files = sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())
        problems = [
            Problem("catalog", self._root / "catalog.sqlite", text)
            for text in text_rows.damage_of(self.database)
        ]
        if problems:
            return problems  # without a catalog nothing says which files should be there
        acknowledged = {self._video_path(video) for video in self.catalog.videos()}
        problems += self.verify_videos()
        for row in self.catalog.all_segments():
            path = self.path(row.video_id, row.number)
            acknowledged.add(path)
            problems += _check(path, row)
        for video in self.catalog.videos():
            problems += [
                Problem(
                    "gap", self.path(video.info.video_id, gap.first), gap.text, video.info.video_id
                )
                for gap in self.catalog.gaps(video.info.video_id)
            ]
            acknowledged |= {
                self.window.path(video.info.video_id, number)
                for number in self._window_of(video.info.video_id)
            }
        problems += self.verify_window()
        problems += self.verify_text()
        for path in files:
            if path.name.endswith(TEMPORARY):
                problems.append(
                    Problem(
                        "temporary", path, "a write was cut off; the next writer deletes this file"
                    )
                )
            elif path not in acknowledged:
                problems.append(
                    Problem("orphan", path, "never acknowledged; the next writer deletes this file")
                )
        return problems

    def verify_videos(self) -> list[Problem]:
        """What is wrong with the files beside the segments."""
        text = "missing or damaged, though needed only when the catalog is lost"
        paths = [self._video_path(video) for video in self.catalog.videos()]
        return [
            Problem("video", path, text, path.parent.name)
            for path in paths
            if video_record.read(path.parent) is None
        ]

    def verify_window(self) -> list[Problem]:
        """Blocks of recent windows that an encoder would go on with and that are not there as they were made."""
        found = []
        for video_id in (video.info.video_id for video in self.catalog.videos()):
            for number in self._needed(video_id):
                what = self.window.problem(video_id, number)
                # a writer may have gone on meanwhile
                if what is not None and number in self._needed(video_id):
                    text = f"{what}; what is encoded from here on can differ from an uninterrupted run's"
                    found.append(
                        Problem("window", self.window.path(video_id, number), text, video_id)
                    )
        return found

    def verify_text(self) -> list[Problem]:
        """What is wrong with the files of text (memory/text/store.py)."""
        return [_of_text(problem) for problem in self.text.verify()]

    def repair_text(self) -> list[Problem]:
        """Write damaged files of text again from the catalog; those that this was done for."""
        return [_of_text(problem) for problem in self.text.repair()]

    def clear_window(self) -> list[Problem]:
        """Delete the damaged blocks of recent windows; what `verify_window` found before."""
        found = self.verify_window()
        for problem in found:
            problem.path.unlink(missing_ok=True)
        return found

    def refill_window(self) -> list[Problem]:
        """Put what the segments store in the place of blocks that are missing; those that this was done for."""
        done = []
        for problem in self.verify_window():
            number = int(problem.path.stem)
            row = self.catalog.segment(problem.video_id, number)
            assert row is not None  # verify_window goes by the rows
            block = self.frames(problem.video_id, number, 0, row.frames)[1]
            if block is not None:
                self.window.put(problem.video_id, number, block)
                done.append(problem)
        return done

    def sweep(self) -> None:
        """Delete what a crash left behind. For the one writer, before it writes."""
        for video_id in self.window.videos():
            self.window.keep(video_id, self._window_of(video_id))
        for folder in filter(Path.is_dir, (self._root / "segments").iterdir()):
            if folder.name.endswith(TEMPORARY):
                shutil.rmtree(folder)
                continue
            video = self.catalog.video(folder.name)
            keep = set() if video is None else {video_record.NAME}
            keep |= {self.path(folder.name, number).name for number in self.numbers(folder.name)}
            for path in folder.iterdir():
                if path.name not in keep:
                    path.unlink()
            told = video_record.read(folder)
            if video is not None and told is not None and told.pruned != video.pruned:
                video_record.write(folder, video)  # a prune that came to step 1 and no further
            if video is None and not any(folder.iterdir()):
                folder.rmdir()
        self.text.sweep()

    def discard(self, video_id: str, numbers: Iterable[int]) -> None:
        """Delete segments of a video, which then is not finished: what is missing can be put again."""
        numbers = list(numbers)
        self.catalog.remove(video_id, numbers)
        crash_points.reached("rows removed")
        for number in numbers:
            self.path(video_id, number).unlink(missing_ok=True)
        sync_folder(self.path(video_id, 0).parent)
        self.window.keep(video_id, self._window_of(video_id))

    def prune(self, video_id: str, first: int) -> None:
        """Delete the segments of a video before number `first`, which is there. They are not missing afterwards."""
        video, row = self.catalog.video(video_id), self.catalog.segment(video_id, first)
        if video is None or row is None:
            raise KeyError((video_id, first))
        gone = [number for number in self.numbers(video_id) if number < first]
        video = replace(video, pruned=Pruned(first, row.start))
        folder = self.path(video_id, 0).parent
        video_record.write(folder, video)  # 1
        with self.database.transaction() as db:  # 2
            self.catalog.forget_before(db, video)
            text_rows.forget_before(db, video_id, row.start)
            crash_points.reached("rows")
        crash_points.reached("rows commit")
        for number in gone:
            self.path(video_id, number).unlink(missing_ok=True)  # 3
            crash_points.reached("file")
        sync_folder(folder)
        crash_points.reached("sync files")
        self.text.sync_files(video_id)

    def end_time(self, row: SegmentRow) -> float:
        """Unix seconds at which a segment was over, or, where nobody knows, at which its file was written; of a file that is
        gone, a moment before all others."""
        if row.wall is not None:
            return row.wall + row.end - row.start
        try:
            return self.path(row.video_id, row.number).stat().st_mtime
        except FileNotFoundError:
            return -math.inf

    def drop(self, video_id: str) -> None:
        """Delete a video. Rows go first: a crash in between leaves files that the next writer deletes. The folder goes under
        another name: a catalog that is rebuilt never finds half a video."""
        folder = self.path(video_id, 0).parent
        gone = folder.with_name(folder.name + TEMPORARY)
        with self.database.transaction() as db:
            self.catalog.forget_video(db, video_id)
            text_rows.forget_video(db, video_id)
        crash_points.reached("video dropped")
        self.window.drop(video_id)
        self.text.drop(video_id)
        if folder.exists():
            shutil.rmtree(gone, ignore_errors=True)
            os.replace(folder, gone)
            sync_folder(folder.parent)
            crash_points.reached("folder renamed")
            shutil.rmtree(gone)
            sync_folder(folder.parent)
            crash_points.reached("folder gone")

    def close(self) -> None:
        self.database.close()

    def _video_path(self, video: VideoRow) -> Path:
        return self.path(video.info.video_id, 0).with_name(video_record.NAME)

    def _before(self, segment: Segment) -> SegmentRow | None:
        """The row of the segment before, None for the first. ValueError when it is not this segment's turn."""
        due, _ = self.catalog.next(segment.video_id)
        if segment.number == due:
            return self.catalog.last(segment.video_id)
        gap = next(
            (g for g in self.catalog.gaps(segment.video_id) if g.first == segment.number), None
        )
        if gap is None:
            raise ValueError(
                f"segment {segment.number} of video {segment.video_id} is out of turn: {due} is next"
            )
        after = self.catalog.segment(segment.video_id, gap.stop)
        if after is not None and segment.times[-1] >= after.times[0]:
            raise UserError(
                f"segment {segment.number} of video {segment.video_id} would reach into segment {gap.stop}, which is there "
                "already: the video gives other frames than it did; use another bank=DIR"
            )
        return self.catalog.segment(segment.video_id, segment.number - 1)

    def _put_block(self, segment: Segment) -> None:
        """Step 0. A segment that fills a gap finds its block there or needs none: those behind it were encoded with it."""
        if not self.storage_format.keeps_window or segment.kv is None:
            return
        video_id, number = segment.video_id, segment.number
        last = self.catalog.last(video_id)
        fills = last is not None and number < last.number
        if fills and (
            number not in self._window_of(video_id) or self.window.problem(video_id, number) is None
        ):
            return
        self.window.put(video_id, number, segment.kv)

    def _needed(self, video_id: str) -> list[int]:
        """Numbers of the segments that a resumed encoder of this video begins with; none of a finished one."""
        if not self.storage_format.keeps_window:
            return []
        video = self.catalog.video(video_id)
        if video is None or video.finished:
            return []
        return [
            row.number for row in self.catalog.newest(video_id, self.storage_format.window_frames)
        ]

    def _window_of(self, video_id: str) -> range:
        """The same with those between them that were dropped and may come again."""
        needed = self._needed(video_id)
        return range(needed[0], needed[-1] + 1) if needed else range(0)

    def _read(self, video_id: str, number: int, read: Callable[[Path, SegmentRow], T]) -> T:
        """What `read` makes of an acknowledged segment; KeyError when it was never put, UserError when its file is not
        as it was written."""
        row = self.catalog.segment(video_id, number)
        if row is None:
            self._refuse_pruned(video_id, number)
            raise KeyError((video_id, number))
        path = self.path(video_id, number)
        try:
            if path.stat().st_size != row.nbytes:
                raise segment_file.DamagedError(
                    f"it has {path.stat().st_size} bytes, not {row.nbytes}"
                )
            return read(path, row)
        except (OSError, segment_file.DamagedError) as error:
            self._refuse_pruned(video_id, number)
            what = "missing" if isinstance(error, FileNotFoundError) else f"damaged ({error})"
            raise self._damage_error(path, what) from error

    def _refuse_pruned(self, video_id: str, number: int) -> None:
        """UserError when another process has deleted the segment since it was found."""
        video = self.catalog.video(video_id)
        if video is not None and video.pruned is not None and number < video.pruned.first:
            raise UserError(
                f"segment {number} of video {video_id} was pruned from bank {self._root} meanwhile; ask again"
            )

    def _damage_error(self, path: Path, what: str) -> UserError:
        return UserError(
            f"{path} is {what}; `reelbank bank action=verify bank={self._root}` lists all damage, action=repair mends it"
        )


def _of_text(problem: TextProblem) -> Problem:
    kind = "temporary" if problem.temporary else "orphan" if problem.orphan else "text"
    return Problem(kind, problem.path, problem.text, problem.video_id)


def _check(path: Path, row: SegmentRow) -> list[Problem]:
    def problem(kind: str, text: str) -> list[Problem]:
        return [Problem(kind, path, text, row.video_id, row.number)]

    try:
        size = path.stat().st_size
        if size != row.nbytes:
            return problem("size", f"{size} bytes, not {row.nbytes} as when it was written")
        segment_file.check(path, row.checksum)
    except FileNotFoundError:
        return problem("missing", "the file of an acknowledged segment is gone")
    except (OSError, segment_file.DamagedError) as error:
        return problem("checksum", str(error))
    return []
