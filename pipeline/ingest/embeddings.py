"""Rows of further frame embedders for videos that are encoded already.

Decodes a film again, and embeds the frames of those segments that have no rows; every other part of
them stays as it is. Each segment is durable before the next one, so an interrupted pass goes on
where it stopped. Knows embedders by their role; no question.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from encoders.detail import ask_for_detail
from encoders.encoder import per_patch, stored_rows
from encoders.errors import UserError
from encoders.schema import (
    FrameEmbedder,
    Frames,
    FrameSource,
    ResumableSource,
    embedder_name,
)
from memory.bank import MemoryBank
from memory.storage.catalog import SegmentRow
from pipeline.ingest.stored_frames import frames_of, neighbors, patch_ends
from pipeline.runtime.stage_timer import StageTimer

# seconds of video embedded so far, bytes written so far
Progress = Callable[[float, int], None]


@dataclass(frozen=True)
class FrameEmbedding:
    """The further frame embedders of a run, and how they embed what is stored."""

    bank: MemoryBank
    embedders: Mapping[str, FrameEmbedder] = field(default_factory=dict)  # by their keys
    is_unasked: bool = False  # True: clip=auto chose them

    def of_encoded(self) -> "FrameEmbedding":
        """What is embedded of a video that is encoded already: nothing unasked."""
        return replace(self, embedders={}) if self.is_unasked else self

    def missing(self, video_id: str) -> list[int]:
        """Numbers of the segments that lack rows of an embedder, ascending."""
        lacks = (self.bank.embeddings.missing(video_id, key) for key in self.embedders)
        return sorted(set().union(*lacks))

    def add(self, source: FrameSource, patch: int, timer: StageTimer, progress: Progress) -> int:
        """Embed what is missing of a stored video; returns the number of new files.

        patch: sampled frames of a temporal patch. UserError if the source gives other frames than
        the bank has, or if another process writes.
        """
        video_id = source.info.video_id
        if not self.missing(video_id):
            return 0
        self.bank.begin_writing()
        missing = set(self.missing(video_id))  # again: another process may have added them
        video = self.bank.catalog.require_video(video_id)
        if isinstance(source, ResumableSource):
            source.resume(video.info)
        ask_for_detail(source, self.embedders.values())
        rows = [row for row in self.bank.catalog.segments(video_id) if row.number in missing]
        count = 0
        for run in neighbors(rows):
            for row, frames in frames_of(source, run):
                count += self._embed(row, frames, patch, timer)
                progress(row.end, 0)
        if any(not self._is_whole(video_id, key) for key in self.embedders):
            self.bank.embeddings.publish()
        return count

    def _is_whole(self, video_id: str, key: str) -> bool:
        return not self.bank.embeddings.missing(video_id, key)

    def _embed(self, row: SegmentRow, frames: Frames, patch: int, timer: StageTimer) -> int:
        """Store the rows that a segment lacks; returns how many files are new."""
        if not np.array_equal(patch_ends(frames.times, patch), row.times):
            raise UserError(
                f"the film gives other frames from {row.start:.1f} s on than bank "
                f"{self.bank.root} has of video {row.video_id}, so none of them was embedded; "
                "encode it into another bank=DIR"
            )
        store = self.bank.embeddings
        lacking = [key for key in self.embedders if row.number in store.missing(row.video_id, key)]
        sources = store.representatives(row.video_id, row.number, row.frames)
        for key in lacking:
            with timer(embedder_name(key)):
                rows = per_patch(self.embedders[key].embed_frames(frames), patch)
            with timer("write"):
                store.write(row.video_id, row.number, key, stored_rows(rows, sources))
        return len(lacking)
