"""Loads recalled frames: from the cache tiers or the store, and ahead of time for the next
question.

Knows the store and the tiers (memory/cache/tiers.py); nothing of search, and questions only as the
evidence that holds frames.
"""

import sqlite3
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from itertools import count

from encoders.errors import UserError
from encoders.schema import KVBlock, Segment, VisualTokens
from memory import frame_budget
from memory.cache.prefetch import Prefetcher
from memory.cache.tiers import FrameKey, FrameTiers, Lease
from memory.schema import Evidence, Run
from memory.storage.segments.segment_codec import StorageFormat
from memory.store import DiskStore
from memory.timeline import Timeline


class FrameLoader:
    """Frames of a bank, in memory for as long as evidence refers to them."""

    def __init__(self, store: DiskStore, tiers: FrameTiers, prefetch_frames: int) -> None:
        self.tiers, self.prefetcher = tiers, Prefetcher()
        self.prefetch_frames = prefetch_frames
        self._store = store
        # videos that questions were about -> whether the last question needed keys and values
        self._needs_kv: dict[str, bool] = {}

    def load(self, keys: list[FrameKey], ordinals: list[int]) -> tuple[tuple[Run, ...], Lease]:
        """Runs of one frame each, pinned until the lease ends. UserError if one is damaged."""
        self._needs_kv |= {key.video_id: key.kv for key in keys}
        cached, lease = self.tiers.take(keys, self._read_range)
        frames = zip(keys, ordinals, cached, strict=True)
        return tuple(
            Run(key.video_id, key.segment, ordinal, frame.tokens, frame.kv)
            for key, ordinal, frame in frames
        ), lease

    def lend(self, group: list[Evidence], lease: Lease, likely: list[FrameKey]) -> list[Evidence]:
        """Hold the lease while any of the evidence is referenced. Then read the likely frames
        ahead."""
        # `next` is one step of the interpreter: evidence may be collected in several threads
        released = count(1)
        for evidence in group:
            weakref.finalize(
                evidence, self._release, lease, likely, released, len(group)
            ).atexit = False
        return group

    def cache_newest(self, segment: Segment, frames: int) -> None:
        """Cache the newest frames of a video that questions are about: every question reads them,
        so none has to read them back from the disk."""
        kv = self._needs_kv.get(segment.video_id)
        if (
            kv is None
            or segment.tokens.is_planned
            or self._store.storage_format != StorageFormat()
            or (kv and segment.kv is None)
        ):
            return
        newest = range(max(0, len(segment) - frames), len(segment))
        self.tiers.fetch(
            [FrameKey(segment.video_id, segment.number, frame, kv) for frame in newest],
            partial(_frames_of, segment),
        )

    def close(self) -> None:
        self.prefetcher.close()

    def _read_range(self, first: FrameKey, count: int) -> tuple[VisualTokens, KVBlock | None]:
        """As the segment files store them, also where the recent window has exact keys and values:
        frames that arrive later never change what a question reads (law 3)."""
        video_id, number, start = first.video_id, first.segment, first.frame
        return self._store.frames(video_id, number, start, start + count, kv=first.kv)

    def _release(
        self, lease: Lease, likely: list[FrameKey], released: Iterator[int], of: int
    ) -> None:
        """Called by the garbage collector, so the work itself happens elsewhere."""
        if next(released) < of:
            return
        self.tiers.end(lease)
        if likely:
            self.prefetcher.submit(partial(self._prefetch, likely))

    def _prefetch(self, keys: list[FrameKey], stop: Callable[[], bool]) -> None:
        # damaged or deleted: a question that needs the frame reports it
        with suppress(UserError, KeyError, sqlite3.Error):
            self.tiers.fetch(keys, self._read_range, stop)


def frame_keys(
    video_id: str, ordinals: Iterable[int], timeline: Timeline, kv: bool
) -> list[FrameKey]:
    """The cache keys of frames. ordinals: rising."""
    places = (
        (place, ordinal)
        for place, first, stop in frame_budget.runs(ordinals, timeline.edges)
        for ordinal in range(first, stop)
    )
    return [
        FrameKey(video_id, int(timeline.numbers[place]), ordinal - int(timeline.edges[place]), kv)
        for place, ordinal in places
    ]


def _frames_of(
    segment: Segment, first: FrameKey, count: int
) -> tuple[VisualTokens, KVBlock | None]:
    """Frames of a segment in memory, as a read from the store would return them."""
    stop = first.frame + count
    block = segment.kv.frames(first.frame, stop) if first.kv and segment.kv is not None else None
    return segment.tokens.frames(first.frame, stop), block
