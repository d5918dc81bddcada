"""Encodes stored segments of a bank that encodes on demand, once a question reads them.

Frames come from the same source, in the same size, through the same tower, compressor and prefill
as when a bank encodes at once. A segment's prefill attends to the frames before it, so these are
encoded as well, from an empty window on: for `prefill.window_frames=32` the 32 frames before the
segment. What is stored is therefore that of an encoding bank, byte for byte,
  - without prefill, for every segment;
  - with it, for every segment of which no frame lies further from the beginning than the window;
  - for later ones, that of a film which begins where the segment's window does.
It depends on the film and the settings alone, not on what was encoded before.

Each segment is durable before the next one, so an interrupted question goes on where it stopped.
"""

import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from encoders.errors import UserError
from encoders.models.backbone import Backbone
from encoders.prefill import key_means
from encoders.schema import (
    Compressor,
    Frames,
    FrameSource,
    Prefill,
    ResumableSource,
    VideoPart,
    VisualTokens,
)
from encoders.sources.identity import why_not_file
from memory.bank import MemoryBank
from memory.storage.catalog import SegmentRow, VideoRow
from pipeline.ingest.planned_model import PlannedModel
from pipeline.ingest.stored_frames import frames_of, neighbors, patch_ends
from pipeline.runtime.torch_threads import divided_threads

# (path, first second, second behind the last or None) -> the frames of a film, as they were sampled
OpenFilm = Callable[[str, float, float | None], FrameSource]


@dataclass(frozen=True)
class OnDemandEncoder:
    """`encoder(video_id, numbers)` encodes these segments of a bank. Threads: one encodes, others
    wait."""

    bank: MemoryBank
    backbone: Backbone
    compressor: Compressor
    new_prefill: Callable[[], Prefill]
    open_film: OpenFilm
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def planned(self) -> PlannedModel:
        """What films are added with."""
        return PlannedModel(self.backbone)

    def __call__(self, video_id: str, numbers: Collection[int]) -> None:
        """UserError where the film is gone or gives other frames, or another process writes."""
        with self._lock:
            missing = self.bank.encoding.missing(video_id, numbers)  # another thread may have it
            if not missing:
                return
            video = self.bank.catalog.require_video(video_id)
            prefill = self.new_prefill()
            windows = {
                number: self.bank.window.rows(video_id, number, prefill.window_frames)
                for number in missing
            }
            source = self._source(video, windows[missing[0]][-1])
            with (
                self.bank.encoding.writing(),
                divided_threads(2 if self.backbone.is_narrow else 1),
            ):
                self._encode(source, windows, prefill)

    def _source(self, video: VideoRow, row: SegmentRow) -> FrameSource:
        """The film of a video. row: of the first segment that is to be encoded."""
        video_id, path = video.info.video_id, video.info.path
        obstacle = why_not_file(video_id, path)
        if obstacle:
            raise UserError(
                f"{row.start:.1f}-{row.end:.1f} s of video {video_id} are still to be encoded for "
                f"this question, and {obstacle}; bring the film back, or search it with "
                "`reelbank find`, which needs no film"
            )
        part = VideoPart.parse(video_id)
        source = self.open_film(path, part.start, part.end)
        if isinstance(source, ResumableSource):
            source.resume(video.info)
        return source

    def _encode(
        self, source: FrameSource, windows: dict[int, list[SegmentRow]], prefill: Prefill
    ) -> None:
        """windows: number of each segment that is to be encoded -> its window, and itself."""
        rows = {row.number: row for window in windows.values() for row in window}
        first_of = {number: window[0].number for number, window in windows.items()}
        tokens: dict[int, VisualTokens] = {}
        for run in neighbors([rows[number] for number in sorted(rows)]):
            for row, frames in frames_of(source, run):
                tokens[row.number] = self._tokens(row, frames)
                if row.number in windows:
                    self._store(windows[row.number], tokens, prefill)
                later = [first for number, first in first_of.items() if number > row.number]
                tokens = {n: own for n, own in tokens.items() if later and n >= min(later)}
        lost = self.bank.encoding.missing(row.video_id, windows)
        if lost:
            raise _other_frames(rows[lost[0]])

    def _tokens(self, row: SegmentRow, frames: Frames) -> VisualTokens:
        if not np.array_equal(patch_ends(frames.times, self.backbone.temporal_patch), row.times):
            raise _other_frames(row)
        return self.compressor(self.backbone.encode_frames(frames))

    def _store(
        self, window: Sequence[SegmentRow], tokens: dict[int, VisualTokens], prefill: Prefill
    ) -> None:
        """Prefill the last segment of the window behind the others, and store it."""
        *before, row = window
        prefill.restore(())
        for each in before:
            prefill(tokens[each.number])
        own = tokens[row.number]
        block = prefill(own)
        sources = own.representatives
        stored = self.bank.catalog.read_segment(row.video_id, row.number)
        self.bank.encoding.write(
            replace(
                stored,
                tokens=own,
                clip=stored.clip[sources],
                kv=block,
                key_means=None if block is None else key_means(block)[sources],
            )
        )


def _other_frames(row: SegmentRow) -> UserError:
    return UserError(
        f"the film gives other frames from {row.start:.1f} s on than the bank has of video "
        f"{row.video_id}, so they cannot be encoded for this question; add the film to another "
        "bank=DIR"
    )
