"""The videos whose frames can be searched right now: what the retriever has taken in of each, and what is saved of that.

Knows the store and the retriever; no question and nothing of frames that were recalled. A video is taken in at its first
question, follows the catalog from then on, and is let go when others were asked more recently.
"""

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from encoders.schema import Segment
from memory.retrieval import row_cache
from memory.schema import Retriever, SegmentIndex
from memory.storage.catalog import SegmentRow
from memory.store import DiskStore
from memory.timeline import Timeline

_VIDEOS = 8  # whose rows stay in memory; the one asked least recently goes first


class HeldVideos:
    """Timelines of the videos that the retriever knows, by video. Threads: one writes, many search."""

    def __init__(
        self, store: DiskStore, retriever: Retriever, folder: Path, changed: Callable[[str], None]
    ) -> None:
        """folder: for saved rows. changed: told the video whose stored segments are not what they were."""
        self.retriever = retriever
        self.lock = threading.RLock()  # never held while a model embeds a question or a file is put
        self.timelines: OrderedDict[str, Timeline] = OrderedDict()
        self._store, self._folder, self._changed = store, folder, changed
        # askers inside the retriever: their videos must stay held
        self._searching: Counter[str] = Counter()

    def __contains__(self, video_id: str) -> bool:
        return video_id in self.timelines

    @contextmanager
    def searching(self, video_id: str) -> Iterator[Timeline]:
        """The frames of a video that can be recalled; they stay in the retriever until the block ends."""
        with self.lock:
            timeline = self.catch_up(video_id)
            self._searching[video_id] += 1
        try:
            yield timeline
        finally:
            with self.lock:
                self._searching[video_id] -= 1

    def catch_up(self, video_id: str, fresh: Segment | None = None) -> Timeline:
        """Let the retriever take in what the catalog has and it does not, and publish these frames: written just now
        (`fresh` saves reading it back), by another process, or before this bank was opened."""
        with self.lock:
            timeline = self.timelines.get(video_id, Timeline.empty())
            revision, rows = self._store.catalog.news(video_id, since=timeline.next)
            if video_id in self.timelines and revision != timeline.revision:
                if self._searching[video_id]:
                    # somebody is searching these rows: the next question sees what has changed
                    return timeline
                self.forget(video_id)
                self._changed(video_id)
                timeline = Timeline.empty()
                revision, rows = self._store.catalog.news(video_id)
            if rows:
                extended = timeline.extended(
                    [(row.number, row.times, row.tokens) for row in rows], revision
                )
                if video_id not in self.timelines:
                    self.retriever.load(self._folder, video_id, extended)
                for row in rows:
                    if row.stop > self.retriever.known(video_id):
                        self.retriever.add(self._index_of(row, fresh))
                timeline = extended
            self.timelines[video_id] = timeline  # last: nothing is found before it can be read
            self.timelines.move_to_end(video_id)
            self._let_go()
            return timeline

    def forget(self, video_id: str) -> None:
        """Let go of a video without saving."""
        with self.lock:
            if self.timelines.pop(video_id, None) is not None:
                self.retriever.forget(video_id)

    def drop_saved(self, video_id: str) -> None:
        """Delete what is saved of a video."""
        row_cache.drop(self._folder / video_id)

    def close(self) -> None:
        """Save all."""
        with self.lock:
            for video_id in self.timelines:
                self._save(video_id)
            self.timelines.clear()

    def _index_of(self, row: SegmentRow, fresh: Segment | None) -> SegmentIndex:
        if fresh is not None and fresh.number == row.number:
            return SegmentIndex.of(fresh, row.first)
        # times are in the catalog: no need to open 450 files for an hour of video
        if not self.retriever.reads:
            return SegmentIndex(
                row.video_id, row.number, row.first, torch.from_numpy(row.times.copy())
            )
        return self._store.index(row.video_id, row.number, self.retriever.reads)

    def _let_go(self) -> None:
        *older, _ = self.timelines
        for video_id in older[: max(len(self.timelines) - _VIDEOS, 0)]:
            if not self._searching[video_id]:
                self._save(video_id)
                self.forget(video_id)
                del self._searching[video_id]

    def _save(self, video_id: str) -> None:
        """Save what a later opening would have to read the segments for, unless they are not what they were."""
        timeline = self.timelines[video_id]
        # full or read-only: it is a cache, and the next opening builds it anew
        with suppress(OSError):
            if self._store.catalog.revision() == timeline.revision and self.retriever.known(
                video_id
            ) == len(timeline):
                self.retriever.save(self._folder, video_id, timeline)
