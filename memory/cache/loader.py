"""Recalled frames: read from the store, kept in the tiers, read ahead for the next question.

Knows the store and the tiers (memory/cache/tiers.py); nothing of search, and questions only as the evidence that holds on to frames.
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
from memory.cache.tiers import FrameTiers, Key, Lease
from memory.schema import Evidence, Run
from memory.storage.segment_codec import AtRest
from memory.store import DiskStore
from memory.timeline import Timeline


class RecalledFrames:
    """Frames of a bank in memory."""

    def __init__(self, store: DiskStore, tiers: FrameTiers, prefetch_frames: int) -> None:
        self.tiers, self.prefetcher = tiers, Prefetcher()
        self.prefetch_frames = prefetch_frames
        self._store = store
        # videos that were asked about -> with keys and values, the last time
        self._asked: dict[str, bool] = {}

    def load(self, keys: list[Key], ordinals: list[int]) -> tuple[tuple[Run, ...], Lease]:
        """Runs of one frame each, in use until the lease ends. UserError when one is damaged."""
        if keys:
            self._asked[keys[0].video_id] = keys[0].kv
        held, lease = self.tiers.take(keys, self._read_range)
        frames = zip(keys, ordinals, held, strict=True)
        return tuple(
            Run(key.segment, ordinal, frame.tokens, frame.kv) for key, ordinal, frame in frames
        ), lease

    def hand_out(self, group: list[Evidence], lease: Lease, likely: list[Key]) -> list[Evidence]:
        """Keep the lease for as long as somebody holds any of the evidence; then read the likely ones ahead."""
        # `next` is one step of the interpreter: evidence may be collected in several threads
        let_go = count(1)
        for evidence in group:
            weakref.finalize(
                evidence, self._let_go_of, lease, likely, let_go, len(group)
            ).atexit = False
        return group

    def keep_newest(self, segment: Segment, frames: int) -> None:
        """The newest frames of a video that is being asked about are wanted by every question: no need to read them back."""
        kv = self._asked.get(segment.video_id)
        if kv is None or self._store.at_rest != AtRest() or (kv and segment.kv is None):
            return
        newest = range(max(0, len(segment) - frames), len(segment))
        self.tiers.fetch(
            [Key(segment.video_id, segment.number, frame, kv) for frame in newest],
            partial(_of_segment, segment),
        )

    def close(self) -> None:
        self.prefetcher.close()

    def _read_range(self, first: Key, count: int) -> tuple[VisualTokens, KVBlock | None, bool]:
        run, lasting = read_frames(
            self._store,
            first.video_id,
            first.segment,
            0,
            first.frame,
            first.frame + count,
            kv=first.kv,
        )
        return run.tokens, run.kv, lasting

    def _let_go_of(self, lease: Lease, likely: list[Key], let_go: Iterator[int], of: int) -> None:
        """Called by the garbage collector, so nothing is done here."""
        if next(let_go) < of:
            return
        self.tiers.end(lease)
        if likely:
            self.prefetcher.submit(partial(self._prefetch, likely))

    def _prefetch(self, keys: list[Key], stop: Callable[[], bool]) -> None:
        # damaged or deleted: whoever asks for it is told
        with suppress(UserError, KeyError, sqlite3.Error):
            self.tiers.fetch(keys, self._read_range, stop)


def read_frames(
    store: DiskStore, video_id: str, number: int, ordinal: int, first: int, stop: int, *, kv: bool
) -> tuple[Run, bool]:
    """Frames first..stop-1 of a segment from the store, and whether a later read returns the same. Keys and values in
    the recent window are exact; once they leave it, the bank returns its stored (quantized) form.

    ordinal: of frame `first` within its video.
    """
    exact = store.made(video_id, number, first, stop) if kv else None
    tokens, block = store.frames(video_id, number, first, stop, kv=kv and exact is None)
    return Run(number, ordinal, tokens, block if exact is None else exact), exact is None


def keys_of(video_id: str, ordinals: Iterable[int], timeline: Timeline, kv: bool) -> list[Key]:
    """Where frames are kept, by segment. ordinals: rising."""
    places = (
        (place, ordinal)
        for place, first, stop in frame_budget.runs(ordinals, timeline.edges)
        for ordinal in range(first, stop)
    )
    return [
        Key(video_id, int(timeline.numbers[place]), ordinal - int(timeline.edges[place]), kv)
        for place, ordinal in places
    ]


def _of_segment(
    segment: Segment, first: Key, count: int
) -> tuple[VisualTokens, KVBlock | None, bool]:
    """Frames of a segment in hand, as reading them back would give them."""
    stop = first.frame + count
    block = segment.kv.frames(first.frame, stop) if first.kv and segment.kv is not None else None
    return segment.tokens.frames(first.frame, stop), block, True
