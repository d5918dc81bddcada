"""Findings of a bank: what a model said of each segment of a video when it was asked about it.

A cache: every finding can be made again from the segments, so no search finds them, no catalog
lists them, and no lock guards them. Two processes that write the same block write the same bytes.
Layout: <bank>/findings/<video_id>/<form>/<number:06d>.jsonl (memory/text/block_file.py). A form is
a digest of what was asked and of the model that answered. A block has the lines of BLOCK_SEGMENTS
segments in a row; a line names its segments (TextLine.parents). A block that is damaged, or whose
segments changed, counts as missing.
"""

import hashlib
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from encoders.text.lines import TextBlock, TextLine, TextSpan
from memory.storage.atomic import make_folder, write_atomically
from memory.storage.catalog import SegmentRow
from memory.storage.file_access import read_bytes
from memory.text import block_file

FOLDER = "findings"
BLOCK_SEGMENTS = 16


class FindingStore:
    """Blocks of findings under the folders of their banks. Threads and processes: any number of
    each."""

    def __init__(
        self, root: Path, *others: Path, place: Callable[[str], int] | None = None
    ) -> None:
        """root, others: folders of the banks. place: the number of a video's bank; None: 0."""
        self._roots = tuple(each / FOLDER for each in (root, *others))
        self._place = place

    def read(
        self, video_id: str, made_with: str, number: int, segments: Sequence[SegmentRow]
    ) -> tuple[TextLine, ...] | None:
        """The lines of a block; None where it has to be made.

        made_with: what was asked, and who answered. segments: those of the block, in time order.
        """
        try:
            data = read_bytes(self._path(video_id, made_with, number))
            block = block_file.unpack(data)
        except (OSError, block_file.DamagedTextError):
            return None
        fits = (block.video_id, block.made_with, block.number) == (video_id, made_with, number)
        return block.span.lines if fits and block.span.note == _state(segments) else None

    def write(
        self,
        video_id: str,
        made_with: str,
        number: int,
        segments: Sequence[SegmentRow],
        lines: Sequence[TextLine],
    ) -> None:
        """Keep the lines of a block. A disk that refuses changes nothing: they are made again."""
        span = TextSpan(
            segments[0].start, segments[-1].end, tuple(lines), last=False, note=_state(segments)
        )
        block = TextBlock(video_id, FOLDER, made_with, number, span)
        path = self._path(video_id, made_with, number)
        with suppress(OSError):
            make_folder(path.parent)
            write_atomically(path, block_file.pack(block))

    def forget(self, video_id: str) -> None:
        """Delete the findings of a video."""
        shutil.rmtree(self._folder(video_id), ignore_errors=True)

    def nbytes(self) -> int:
        """Bytes of all blocks."""
        blocks = (path for root in self._roots for path in root.glob("*/*/*.jsonl"))
        return sum(path.stat().st_size for path in blocks)

    def _path(self, video_id: str, made_with: str, number: int) -> Path:
        form = hashlib.sha256(made_with.encode()).hexdigest()[:16]
        return self._folder(video_id) / form / f"{number:06d}.jsonl"

    def _folder(self, video_id: str) -> Path:
        place = 0 if self._place is None else self._place(video_id)
        return self._roots[place] / video_id


def _state(segments: Sequence[SegmentRow]) -> str:
    """Changes with every change of the segments."""
    whole = " ".join(f"{row.number}:{row.checksum}" for row in segments)
    return hashlib.sha256(whole.encode()).hexdigest()
