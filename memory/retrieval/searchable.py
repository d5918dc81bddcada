"""The videos that the retriever has in memory, and their saved rows.

Knows the store and the retriever; no questions and no recalled frames. A video is loaded at its
first question. From then on it follows the catalog, until it is evicted because questions were
about other videos.
"""

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress

import torch

from encoders.schema import Segment
from memory.retrieval import row_cache
from memory.schema import Retriever, SegmentIndex
from memory.storage.catalog import SegmentRow
from memory.store import DiskStore, index_folder
from memory.timeline import Timeline

_VIDEOS = 8  # whose rows stay in memory; the least recently searched one goes first


class SearchableVideos:
    """Timelines of the videos in the retriever, by video. Threads: one writes, many search."""

    def __init__(
        self, store: DiskStore, retriever: Retriever, changed: Callable[[str], None]
    ) -> None:
        """changed: called with a video whose stored segments were changed, not only added to."""
        self.retriever = retriever
        self.lock = threading.RLock()  # never held while a model embeds a question or a file is put
        self.timelines: OrderedDict[str, Timeline] = OrderedDict()
        self._store, self._changed = store, changed
        # running searches by video: these videos must stay in memory
        self._searching: Counter[str] = Counter()

    def __contains__(self, video_id: str) -> bool:
        return video_id in self.timelines

    @contextmanager
    def searching(self, video_ids: Collection[str]) -> Iterator[dict[str, Timeline]]:
        """The timelines of these videos; their rows stay in the retriever until the block ends."""
        timelines = dict[str, Timeline]()
        try:
            with self.lock:
                for video_id in video_ids:
                    timelines[video_id] = self.sync(video_id)
                    self._searching[video_id] += 1
            yield timelines
        finally:
            with self.lock:
                self._searching.subtract(timelines.keys())

    def sync(self, video_id: str, fresh: Segment | None = None) -> Timeline:
        """Add the segments that the catalog has and the retriever lacks, then publish their frames.
        They were written just now (`fresh` is that segment, so it need not be read back), by
        another process, or before this bank was opened."""
        with self.lock:
            timeline = self.timelines.get(video_id, Timeline.empty())
            revision, rows = self._store.catalog.segments_since(
                video_id, since=timeline.next_number
            )
            if video_id in self.timelines and revision != timeline.revision:
                if self._searching[video_id]:
                    # a search uses these rows: the next question sees the change
                    return timeline
                self.forget(video_id)
                self._changed(video_id)
                timeline = Timeline.empty()
                revision, rows = self._store.catalog.segments_since(video_id)
            if rows:
                extended = timeline.extended(
                    [(row.number, row.times, row.tokens) for row in rows],
                    revision,
                    [row.checksum for row in rows],
                )
                if video_id not in self.timelines:
                    folder = index_folder(self._store, video_id)
                    self.retriever.load(folder, video_id, extended)
                for row in rows:
                    if row.stop > self.retriever.frame_count(video_id):
                        self.retriever.add(self._index_of(row, fresh))
                timeline = extended
            self.timelines[video_id] = timeline  # last: no frame is found before it can be read
            self.timelines.move_to_end(video_id)
            self._evict()
            return timeline

    def forget(self, video_id: str) -> None:
        """Free a video's memory without saving."""
        with self.lock:
            if self.timelines.pop(video_id, None) is not None:
                self.retriever.forget(video_id)

    def drop_saved(self, video_id: str) -> None:
        """Delete the saved rows of a video."""
        row_cache.drop(index_folder(self._store, video_id) / video_id)

    def close(self) -> None:
        """Save all videos."""
        with self.lock:
            for video_id in self.timelines:
                self._save(video_id)
            self.timelines.clear()

    def _index_of(self, row: SegmentRow, fresh: Segment | None) -> SegmentIndex:
        if fresh is not None and fresh.number == row.number:
            return SegmentIndex.of(fresh, row.first)
        # times are in the catalog: an hour of video would otherwise mean opening 450 files
        if not self.retriever.reads:
            return SegmentIndex(
                row.video_id, row.number, row.first, torch.from_numpy(row.times.copy())
            )
        return self._store.index(row.video_id, row.number, self.retriever.reads)

    def _evict(self) -> None:
        *older, _ = self.timelines
        for video_id in older[: max(len(self.timelines) - _VIDEOS, 0)]:
            if not self._searching[video_id]:
                self._save(video_id)
                self.forget(video_id)
                del self._searching[video_id]

    def _save(self, video_id: str) -> None:
        """Save rows that a later opening would have to read from segments, unless the segments have
        changed."""
        timeline = self.timelines[video_id]
        # a full or read-only disk: this is a cache, and the next opening rebuilds it
        with suppress(OSError):
            is_current = self._store.changes.revision(video_id) == timeline.revision
            if is_current and self.retriever.frame_count(video_id) == len(timeline):
                self.retriever.save(index_folder(self._store, video_id), video_id, timeline)
