"""The frame embeddings of all videos of a bank in one array: one search finds the frames of a
thousand films.

Knows the store and saved rows; no text and no language model. Every visible row is scored, so the
result does not depend on the order in which rows were added, or on later ones (laws 3 and 8). Of
equal scores, that of the lower video id comes first. Rows of a video come from its saved index,
else from its segments. Beyond the RAM budget they are mapped from a temporary file.
"""

import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from memory.retrieval import row_cache, topk
from memory.retrieval.clip import ClipRetriever
from memory.retrieval.frame_index import largest_products
from memory.retrieval.fused import FusedRetriever
from memory.retrieval.row_buffer import RamBudget, RowBuffer
from memory.schema import FrameName, Question, Retriever
from memory.store import DiskStore, index_folder
from memory.timeline import GrowingArray, Timeline

_SPARE = 4  # times as many frames are ranked as asked for, as gaps between spans are left out


@dataclass(frozen=True, slots=True)
class RankedFrame:
    """A frame with its similarity to a query."""

    name: FrameName
    time: float  # seconds
    score: float  # cosine


class LibraryIndex:
    """Rows of all videos. Threads: many search."""

    def __init__(self, store: DiskStore, clip: ClipRetriever, ram_bytes: int) -> None:
        """clip: whose rows and queries these are."""
        self._store, self._clip, self._ram_bytes = store, clip, ram_bytes
        self._lock = threading.Lock()
        self._clear()

    @property
    def nbytes(self) -> int:
        """Bytes in RAM."""
        rows = 0 if self._rows is None else self._rows.nbytes
        return rows + sum(part.nbytes for part in (self._videos, self._ordinals, self._times))

    def search(
        self, question: Question, intervals: Mapping[str, float], most: int
    ) -> list[RankedFrame]:
        """The best frames of the question's videos that it may see, best first.

        intervals: seconds between frames, by video.
        """
        queries = self._clip.query_rows(question)  # outside of the lock: it may wait for a GPU
        with self._lock:
            self._sync()
            rows, names = self._rows, list(self._numbers)
            videos, ordinals, times = self._videos, self._ordinals, self._times
        if rows is None:
            return []
        scores = _scores(rows, queries, len(videos))
        scores[~self._visible(question, names, intervals, videos, times)] = -np.inf
        places = np.argsort(np.argsort(np.array(names)))  # [videos] number of each among the ids
        depth = min(_SPARE * most, len(scores))
        while True:
            ranked: list[RankedFrame] = []
            for row in _best(scores, places[videos], ordinals, depth).tolist():
                if scores[row] == -np.inf or len(ranked) == most:
                    return ranked
                name = FrameName(names[videos[row]], int(ordinals[row]))
                time = float(times[row])
                if question.sees(name.video_id, time, intervals[name.video_id]):
                    ranked.append(RankedFrame(name, time, float(scores[row])))
            if depth == len(scores) or len(ranked) == most:
                return ranked
            depth = min(_SPARE * depth, len(scores))  # a wide gap took the best

    def release(self) -> None:
        """Free the rows."""
        with self._lock:
            self._clear()

    # ---- inside

    def _clear(self) -> None:
        self._rows: RowBuffer | None = None
        self._numbers: dict[str, int] = {}  # video id -> number in `_videos`
        self._timelines: dict[str, Timeline] = {}
        self._arrays = (
            GrowingArray(np.empty(0, np.int32)),
            GrowingArray(np.empty(0, np.int64)),
            GrowingArray(np.empty(0, np.float64)),
        )
        self._videos, self._ordinals, self._times = (
            array.extended(np.empty(0)) for array in self._arrays
        )
        self._state: tuple[int, ...] | None = None
        self._revisions: tuple[int, ...] = ()

    def _sync(self) -> None:
        """Add what the catalog has and the rows lack; all again after any other change."""
        changes = self._store.changes
        state = changes.state()
        if state == self._state:
            return
        revisions = changes.revisions()
        if revisions != self._revisions:
            self._clear()
            self._revisions = revisions
        for video_id, newest in changes.newest_numbers().items():
            timeline = self._timelines.get(video_id, Timeline.empty())
            if timeline.next_number <= newest:
                self._extend(video_id, timeline)
        self._state = state

    def _extend(self, video_id: str, timeline: Timeline) -> None:
        known = len(timeline)
        revision, segments = self._store.catalog.segments_since(video_id, timeline.next_number)
        extended = timeline.extended(
            [(row.number, row.times, row.tokens) for row in segments],
            revision,
            [row.checksum for row in segments],
        )
        for first, block in self._blocks(video_id, extended, known):
            self._append(video_id, first, block, extended)
        self._timelines[video_id] = extended

    def _blocks(
        self, video_id: str, timeline: Timeline, known: int
    ) -> Iterator[tuple[int, np.ndarray]]:
        """The ordinal of a first frame and the rows from it on, for the frames from `known` on that
        have rows."""
        done = known
        if known == 0:
            folder = index_folder(self._store, video_id)
            saved = self._clip.saved_rows(folder, video_id)
            with suppress(OSError):
                for block in list(row_cache.load(saved, timeline)):
                    yield done, block
                    done += len(block)
        for place in range(int(np.searchsorted(timeline.edges, done)), len(timeline.numbers)):
            number, name = int(timeline.numbers[place]), self._clip.name
            rows = self._store.index(video_id, number, {name}).embeddings(name)
            if rows is not None:
                yield int(timeline.edges[place]), rows.float().numpy()

    def _append(self, video_id: str, first: int, part: np.ndarray, timeline: Timeline) -> None:
        if self._rows is None:
            self._rows = RowBuffer((part.shape[1],), RamBudget(self._ram_bytes), np.float32)
        number = self._numbers.setdefault(video_id, len(self._numbers))
        ordinals = np.arange(first, first + len(part))
        self._rows.append(part)
        self._videos, self._ordinals, self._times = (
            array.extended(more)
            for array, more in zip(
                self._arrays,
                (np.full(len(part), number), ordinals, timeline.times[ordinals]),
                strict=True,
            )
        )

    def _visible(
        self,
        question: Question,
        names: list[str],
        intervals: Mapping[str, float],
        videos: np.ndarray,
        times: np.ndarray,
    ) -> np.ndarray:
        """[N] bool: the rows that a question may see, gaps between spans of a video included."""
        asked = set(question.videos)
        low = np.full(len(names), np.inf)
        high, moment = np.full(len(names), -np.inf), np.full(len(names), -np.inf)
        for number, video_id in enumerate(names):
            if video_id in asked:
                start, high[number] = question.hull(video_id)
                low[number] = start - intervals[video_id]
                moment[number] = question.moment(video_id)
        if np.isinf(low[low < np.inf]).all() and np.isinf(np.minimum(high, moment)).all():
            seen: np.ndarray = (high == np.inf)[videos]
            return seen
        return (times >= low[videos]) & (times < high[videos]) & (times <= moment[videos])


def clips_of(retriever: Retriever) -> dict[str, ClipRetriever]:
    """The parts of a retriever that compare frame embeddings, by name; "": the retriever itself."""
    parts = retriever.parts if isinstance(retriever, FusedRetriever) else {"": retriever}
    return {name: part for name, part in parts.items() if isinstance(part, ClipRetriever)}


def _best(scores: np.ndarray, places: np.ndarray, ordinals: np.ndarray, k: int) -> np.ndarray:
    """Rows of the k best scores, best first. Of equal ones, the video with the lower id comes
    first, then the earlier frame: the order in which rows were added does not count."""
    best = topk.best(scores, min(k, len(scores)))
    if len(best) == 0:
        return best
    above = np.flatnonzero(scores >= scores[best[-1]])
    order = np.lexsort((ordinals[above], places[above], -scores[above]))
    return above[order[:k]]


def _scores(rows: RowBuffer, queries: Tensor, count: int) -> np.ndarray:
    """[count] float32: products of the rows with the nearest of the queries [Q, E]."""
    vectors = queries.detach().to("cpu", torch.float32).numpy()
    scores, at = np.empty(count, np.float32), 0
    for block in rows.blocks(count):
        scores[at : at + len(block)] = largest_products(block, vectors)
        at += len(block)
    return scores
