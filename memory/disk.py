"""Segments on disk, one file each, and the promise that a segment once put survives a crash, bit-exact.

Knows nothing of retrieval, of questions or of who may write (the bank sees to it that only one process does).
Layout:  <bank>/catalog.sqlite, <bank>/segments/<video_id>/<number:06d>.safetensors
Order of `put`:
    0 in a quantised bank, the segment's block into the recent window      memory/window.py
    1 temporary file in the folder of the segment, fsync
    2 rename to its name, fsync of the folder
    3 row in the catalog, committed with synchronous=FULL: from here on the segment exists
A crash after 1 leaves a temporary, after 2 a file without a row. Neither was acknowledged: nobody reads it, `verify`
names it, the next writer's `sweep` deletes it, and putting the same segment again replaces it.
"""

import hashlib
import re
import shutil
from collections.abc import Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from encoders.errors import UserError
from encoders.schema import KVBlock, Segment, VisualTokens
from memory import segment_file
from memory.atomic import TEMPORARY, make_folder, sync_folder, write_atomically
from memory.catalog import Catalog, SegmentRow
from memory.rest import AtRest
from memory.schema import SegmentIndex
from memory.window import RecentWindow

_SAFE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")  # a video id becomes a folder


@dataclass(frozen=True, slots=True)
class Problem:
    """Something `verify` found."""

    kind: str  # data is lost: missing, size, checksum, order, catalog; harmless: orphan, temporary
    path: Path
    text: str

    @property
    def harmless(self) -> bool:
        """Left by a crash and never acknowledged."""
        return self.kind in ("orphan", "temporary")

    def __str__(self) -> str:
        return f"{self.path}: {self.text}"


class DiskStore:
    """Segments of many videos under one folder."""

    def __init__(self, root: Path, at_rest: AtRest = segment_file.AS_MADE) -> None:
        self._root = Path(root)
        self.at_rest = at_rest  # of what is put; a file says itself how to read it
        self.window = RecentWindow(self._root / "window")
        make_folder(self._root / "segments")
        self.catalog = Catalog(self._root / "catalog.sqlite")

    def path(self, video_id: str, number: int) -> Path:
        """Where a segment is kept."""
        if not _SAFE.fullmatch(video_id):
            raise ValueError(f"video id {video_id!r} cannot name a folder; use letters, digits, '.', '_' and '-'")
        return self._root / "segments" / video_id / f"{number:06d}.safetensors"

    def put(self, segment: Segment) -> None:
        """Keep the next segment of its video. When this returns, it is durable."""
        path = self.path(segment.video_id, segment.number)
        last = self.catalog.last(segment.video_id)
        due = 0 if last is None else last.number + 1
        if segment.number != due:
            raise ValueError(f"segment {segment.number} of video {segment.video_id} is out of turn: {due} is next")
        data = segment_file.pack(segment, self.at_rest)
        make_folder(path.parent)
        if self.at_rest.keeps_window and segment.kv is not None:
            self.window.put(segment.video_id, segment.number, segment.kv)  # 0
        write_atomically(path, data)  # 1, 2
        row = SegmentRow(
            segment.video_id,
            segment.number,
            segment.start,
            segment.end,
            frames=len(segment),
            first=0 if last is None else last.stop,
            nbytes=len(data),
            checksum=_checksum(data),
            times=segment.times.cpu().numpy(),
            tokens=np.diff(segment.tokens.offsets.cpu().numpy()),
        )
        self.catalog.add_segment(row)  # 3
        if self.at_rest.keeps_window:
            self.window.keep(segment.video_id, self._in_window(segment.video_id))

    def get(self, video_id: str, number: int) -> Segment:
        return segment_file.read(self._sound(video_id, number)[0])

    def frames(
        self, video_id: str, number: int, first: int, stop: int, *, kv: bool = True
    ) -> tuple[VisualTokens, KVBlock | None]:
        """Frames first..stop-1, counted within the segment; nothing else of the file is read."""
        return segment_file.read_frames(self._sound(video_id, number)[0], first, stop, kv=kv)

    def index(self, video_id: str, number: int, want: Set[str]) -> SegmentIndex:
        """The rows that a retriever takes in."""
        path, row = self._sound(video_id, number)
        return segment_file.read_index(path, row.first, want)

    def numbers(self, video_id: str) -> Sequence[int]:
        last = self.catalog.last(video_id)
        return range(0 if last is None else last.number + 1)

    def verify(self) -> list[Problem]:
        """Read every file and say what is wrong. A segment that is just being put may be called an orphan."""
        files = sorted(path for path in (self._root / "segments").rglob("*") if path.is_file())
        problems = [Problem("catalog", self._root / "catalog.sqlite", text) for text in self.catalog.damage()]
        if problems:
            return problems  # without a catalog nothing says which files should be there
        acknowledged = set()
        due: dict[str, tuple[int, int]] = {}  # number and first ordinal that must come next
        for row in self.catalog.all_segments():
            path = self.path(row.video_id, row.number)
            acknowledged.add(path)
            if (row.number, row.first) != due.get(row.video_id, (0, 0)):
                problems.append(Problem("order", path, f"a segment is missing in the catalog before {row.number}"))
            due[row.video_id] = (row.number + 1, row.stop)
            problems += _check(path, row)
        for path in files:
            if path.name.endswith(TEMPORARY):
                problems.append(Problem("temporary", path, "a write was cut off; the next writer deletes this file"))
            elif path not in acknowledged:
                problems.append(Problem("orphan", path, "never acknowledged; the next writer deletes this file"))
        return problems

    def sweep(self) -> None:
        """Delete what a crash left behind. For the one writer, before it writes."""
        for video_id in self.window.videos() if self.at_rest.keeps_window else ():
            self.window.keep(video_id, self._in_window(video_id))
        for folder in filter(Path.is_dir, (self._root / "segments").iterdir()):
            known = len(self.numbers(folder.name))
            keep = {self.path(folder.name, number).name for number in range(known)}
            for path in folder.iterdir():
                if path.name not in keep:
                    path.unlink()

    def drop(self, video_id: str) -> None:
        """Delete a video. Rows go first: a crash in between leaves files that the next writer deletes."""
        folder = self.path(video_id, 0).parent
        self.catalog.drop(video_id)
        self.window.drop(video_id)
        if folder.exists():
            shutil.rmtree(folder)
            sync_folder(folder.parent)

    def close(self) -> None:
        self.catalog.close()

    def _in_window(self, video_id: str) -> set[int]:
        """Numbers of the segments that a resumed encoder of this video needs; none of a finished one."""
        video = self.catalog.video(video_id)
        if video is not None and video.finished:
            return set()
        return {row.number for row in self.catalog.newest(video_id, self.at_rest.window_frames)}

    def _sound(self, video_id: str, number: int) -> tuple[Path, SegmentRow]:
        """Path and row of an acknowledged segment whose file has its full size (mapping a file cut short kills the
        process with SIGBUS instead of raising)."""
        row = self.catalog.segment(video_id, number)
        if row is None:
            raise KeyError((video_id, number))
        path = self.path(video_id, number)
        if not path.is_file() or path.stat().st_size != row.nbytes:
            raise UserError(f"{path} is missing or damaged; run `reelbank bank action=verify bank={self._root}`")
        return path, row


def _check(path: Path, row: SegmentRow) -> list[Problem]:
    if not path.is_file():
        return [Problem("missing", path, "the file of an acknowledged segment is gone")]
    data = path.read_bytes()
    if len(data) != row.nbytes:
        return [Problem("size", path, f"{len(data)} bytes, not {row.nbytes} as when it was written")]
    if _checksum(data) != row.checksum:
        return [Problem("checksum", path, "the bytes are not those that were written")]
    return []


def _checksum(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()
