"""Old segments in fewer bits: `bank.compaction`.

After the long-term memory of InternLM-XComposer2.5-OmniLive (arXiv 2412.09596), which compresses
what is old; there a trained model does so. Here frames, times, search rows of embedders and words
stay, and keys, values and tokens are stored again in another format
(memory/storage/segments/segment_codec.py). A file says itself how to read it, so old and new
segments stand side by side.

Knows the store and rules of age; no retriever, no questions.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from encoders.errors import UserError
from memory.storage.catalog import SegmentRow
from memory.storage.os_errors import as_user_errors
from memory.storage.retention import Cut, Rule
from memory.storage.segments import replacement, segment_file
from memory.storage.segments.segment_codec import StorageFormat
from memory.store import DiskStore, head_of

_TOGETHER = 64  # segments whose rows change at once: running questions load a video again after it


@dataclass(frozen=True, slots=True)
class Compacted:
    """What was rewritten of one video."""

    video_id: str
    segments: int
    seconds: float
    before: int  # bytes of these files
    nbytes: int  # and of those in their place


class Compaction:
    """Rewrites the oldest segments of each video. Threads: any; the bank writes between two
    segments."""

    def __init__(
        self,
        store: DiskStore,
        cuts: Callable[[Rule], list[Cut]],
        begin_writing: Callable[[], None],
        writing: threading.RLock,
    ) -> None:
        """cuts: which beginning of each video a rule selects, never what the encoder of an
        unfinished one goes on with. writing: held while rows change."""
        self._store, self._cuts = store, cuts
        self._begin_writing, self._writing = begin_writing, writing
        # video, format -> the newest segment that a run has looked at
        self._last: dict[tuple[str, str], SegmentRow] = {}

    def run(
        self,
        rule: Rule,
        storage_format: StorageFormat,
        *,
        dry_run: bool = False,
        is_stopped: Callable[[], bool] = lambda: False,
    ) -> list[Compacted]:
        """Store what a rule selects in this format, where that is smaller. What was rewritten, of
        each video; dry_run changes nothing, and its bytes are those of all that it would read.

        Beside a writer, of this process alone: it waits for one segment at most, or for rows.
        A segment that it has looked at is not looked at again by this object. is_stopped: asked
        before each segment; once True, it ends and keeps what it has done.

        An answer about these seconds reads other numbers from then on, up to rounding of the
        format; frames and times are the same. UserError if the rule has no age, if the video is not
        there or has rows of further frame embedders, which belong to the bytes of a segment, or if
        another process writes.
        """
        if rule.before is None:
            raise UserError("action=compact needs older_than=, such as older_than=1d.")
        if self._store.encoded.settings is not None:
            raise UserError(
                f"bank {self._store.root} encodes on demand, and what it has encoded belongs to "
                "the bytes of its segments; compact a bank that encodes at once"
            )
        with self._writing, as_user_errors(self._store.root):
            if not dry_run:
                self._begin_writing()
            cuts = self._cuts(rule)
        done = []
        for cut in cuts:
            rows = [
                row
                for row in self._store.catalog.segments(cut.video_id)
                if cut.first is None or row.number < cut.first
            ]
            if not dry_run:
                rows = rows[self._looked_at(rows, storage_format) :]
            if self._store.embeddings.rows.nbytes(cut.video_id):
                raise UserError(
                    f"video {cut.video_id} has rows of further frame embedders, which belong to "
                    "the bytes of its segments; compact a bank with one frame embedder"
                )
            pairs = (
                [(row, row) for row in rows]
                if dry_run
                else self._compact(rows, storage_format, is_stopped)
            )
            if pairs:
                done.append(
                    Compacted(
                        cut.video_id,
                        len(pairs),
                        sum(row.end - row.start for row, _ in pairs),
                        sum(row.nbytes for row, _ in pairs),
                        sum(row.nbytes for _, row in pairs),
                    )
                )
        return done

    def _compact(
        self,
        rows: Sequence[SegmentRow],
        storage_format: StorageFormat,
        is_stopped: Callable[[], bool],
    ) -> list[tuple[SegmentRow, SegmentRow]]:
        """Rewrite segments of one video. The rows before and after."""
        pairs: list[tuple[SegmentRow, SegmentRow]] = []
        for first in range(0, len(rows), _TOGETHER):
            new: list[tuple[SegmentRow, SegmentRow]] = []
            for row in rows[first : first + _TOGETHER]:
                if is_stopped():
                    break
                with self._writing, as_user_errors(self._store.root):
                    self._begin_writing()
                    own = self._write(row, storage_format) if self._is_there(row) else None
                    new += [] if own is None else [(row, own)]
            with self._writing, as_user_errors(self._store.root):
                pairs += self._exchange(new)
            if is_stopped():
                return pairs
        if rows:
            last = next((own for row, own in pairs if row is rows[-1]), rows[-1])
            self._last[last.video_id, str(storage_format)] = last
        return pairs

    def _looked_at(self, rows: Sequence[SegmentRow], storage_format: StorageFormat) -> int:
        """How many of these segments of one video an earlier run has looked at."""
        if not rows:
            return 0
        last = self._last.get((rows[0].video_id, str(storage_format)))
        seals = {row.number: (place, row.checksum) for place, row in enumerate(rows)}
        if last is None or last.number not in seals:
            return 0
        place, seal = seals[last.number]
        return place + 1 if seal == last.checksum else 0  # else the video was written anew

    def _exchange(
        self, new: Sequence[tuple[SegmentRow, SegmentRow]]
    ) -> list[tuple[SegmentRow, SegmentRow]]:
        """Put replacements in the place of their segments. The pairs of which both are still there:
        a segment may have been pruned meanwhile, and another writer deletes a replacement that no
        row names."""
        self._begin_writing()
        paths = {own.number: self._store.path(own.video_id, own.number) for _, own in new}
        there = [
            (row, own)
            for row, own in new
            if self._is_there(row) and replacement.is_ready(paths[own.number], own.checksum)
        ]
        if there:
            self._store.catalog_writer.replace_segments([own for _, own in there])
        for row, own in new:
            if (row, own) in there:
                replacement.finish(paths[own.number])
            elif not self._is_there(row):
                replacement.settle(paths[own.number], None)
        return there

    def _is_there(self, row: SegmentRow) -> bool:
        """Whether a segment is as it was."""
        now = self._store.catalog.segment(row.video_id, row.number)
        return now is not None and now.checksum == row.checksum

    def _write(self, row: SegmentRow, storage_format: StorageFormat) -> SegmentRow | None:
        """Write the replacement of one segment. Its row; None where it would not be smaller."""
        if head_of(self._store, row.video_id, row.number).is_stored_as(storage_format):
            return None
        segment = self._store.get(row.video_id, row.number)
        data = segment_file.pack(segment, storage_format, replaces=row.checksum)
        if len(data) >= row.nbytes:
            return None
        replacement.write(self._store.path(row.video_id, row.number), data)
        return replace(row, nbytes=len(data), checksum=segment_file.seal(data))
