"""Where an encoder resumes in a video, and the window of earlier frames that it starts with.

Knows the store; no encoder, no retriever, no questions. A quantized bank keeps the exact keys and
values of unfinished videos (memory/storage/segments/recent_window.py); everything else comes back
as the segment files store it.
"""

import math
from dataclasses import dataclass

import numpy as np

from encoders.schema import CarriedFrame, VisualTokens
from memory.schema import Run
from memory.storage.catalog import SegmentRow
from memory.store import DiskStore, carried_of


@dataclass(frozen=True, slots=True, eq=False)
class ResumePoint:
    """What an encoder needs in order to encode segment `number` of a video."""

    number: int
    is_next: bool  # True: the segment comes after the last one; False: it fills a gap
    times: np.ndarray  # [T] float64 seconds, rising: all stored frames before the segment
    start: float  # seconds: frames of the segment come at this second or later
    window: tuple[
        Run, ...
    ]  # whole segments in time order, at least the window's frames where the bank has them
    is_exact: bool  # every key and value in `window` is exactly what the encoder produced
    # Unix seconds of second 0 of the session that recorded the segment, if its neighbors have it
    began: float | None


class EncoderWindow:
    """The last segments before a point in a video."""

    def __init__(self, store: DiskStore) -> None:
        self._store = store

    def segments(self, video_id: str, frames: int, before: int | None = None) -> list[Run]:
        """The last segments, whole and in time order, that together hold at least `frames` frames,
        or all there are. Exact keys and values come from the recent window where it has them.
        before: only segments below this number."""
        rows = self._store.catalog.newest(video_id, frames, before)
        return [self._whole(video_id, row) for row in rows]

    def rows(self, video_id: str, number: int, frames: int) -> list[SegmentRow]:
        """The rows of the segments before segment `number` that together hold at least `frames`
        frames, or of all there are, and its own row, in time order. KeyError if it is not stored.
        """
        own = self._store.catalog.segment(video_id, number)
        if own is None:
            raise KeyError((video_id, number))
        before = self._store.catalog.newest(video_id, frames, number) if frames else []
        return [*before, own]

    def rows_from(self, video_id: str, first: int, number: int) -> list[SegmentRow]:
        """The rows of the segments of these numbers, both with their own, that are stored, in time
        order. KeyError if the last one is not."""
        rows = [self._store.catalog.segment(video_id, each) for each in range(first, number + 1)]
        if rows[-1] is None:
            raise KeyError((video_id, number))
        return [row for row in rows if row is not None]

    def tokens(self, row: SegmentRow) -> VisualTokens:
        """The visual tokens of a whole segment, as the bank stores them."""
        return self._store.frames(row.video_id, row.number, 0, row.frames, kv=False)[0]

    def _whole(self, video_id: str, row: SegmentRow) -> Run:
        """A whole segment. Keys and values in the recent window are exact; once they leave it, the
        bank returns its quantized form."""
        exact = self._store.exact_kv(video_id, row.number, 0, row.frames)
        tokens, block = self._store.frames(video_id, row.number, 0, row.frames, kv=exact is None)
        return Run(video_id, row.number, row.first, tokens, block if exact is None else exact)

    def carried(self, video_id: str, number: int) -> CarriedFrame | None:
        """What a compressor carried on to segment `number`; None where it carries nothing, or the
        segment before is not there."""
        if self._store.catalog.segment(video_id, number - 1) is None:
            return None
        return carried_of(self._store, video_id, number - 1)

    def is_exact(self, video_id: str, frames: int, before: int | None = None) -> bool:
        """True if every key and value in that window is exactly what the encoder produced. If
        False, later segments may differ from an uninterrupted run."""
        rows = self._store.catalog.newest(video_id, frames, before)
        video = self._store.catalog.video(video_id)
        is_pruned = video is not None and video.pruned is not None
        if is_pruned and sum(row.frames for row in rows) < frames:
            return False  # a part of the window was deleted
        return not self._store.storage_format.keeps_window or all(
            self._store.window.has(video_id, row.number) for row in rows
        )

    def resume_point(self, video_id: str, number: int, frames: int) -> ResumePoint:
        """frames: how many frames the encoder's window holds."""
        catalog = self._store.catalog
        earlier = [row.times for row in catalog.segments(video_id) if row.number < number]
        times = np.concatenate([np.empty(0, np.float64), *earlier])
        video = catalog.video(video_id)
        pruned = 0.0 if video is None or video.pruned is None else video.pruned.start
        return ResumePoint(
            number,
            is_next=number == catalog.next(video_id)[0],
            times=times,
            # not the end of the last segment: where frames are unevenly spaced, the next one may
            # come before that end
            start=math.nextafter(float(times[-1]), math.inf) if len(times) else pruned,
            window=tuple(self.segments(video_id, frames, number)),
            is_exact=self.is_exact(video_id, frames, number),
            began=catalog.session_start(video_id, number),
        )
