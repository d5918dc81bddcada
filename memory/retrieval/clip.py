"""Frames by the similarity of their embedding to the question's text, or to its picture.

Knows no files except the index folder, no prompts, no pixels. Convention for every retriever: its
YAML is `_partial_: true`, and the partial is called with the same two partners, `embedder` and
`queries`. So the builder needs no special cases; each class says how it uses both.
"""

import logging
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from encoders.errors import UserError
from encoders.schema import FrameEmbedder
from memory.retrieval import ivf_block, row_cache
from memory.retrieval.common import Queries, hits, is_next, refuse_unknown
from memory.retrieval.frame_index import FrameIndex
from memory.retrieval.row_buffer import RamBudget
from memory.schema import Hits, Question, SegmentIndex, Stretch
from memory.timeline import Timeline

OWN_ROWS = "clip"  # the embeddings that segments hold

log = logging.getLogger("reelbank.memory")


class ClipRetriever:
    """Frames whose embedding is nearest to the question, spread over segments.

    per_segment: how many frames of one segment may come before every other segment's best. The
    frames of each segment are ranked by score. The first `per_segment` of every segment form round
    1, the next `per_segment` round 2, and so on. The ranking is round 1 by score, then round 2 by
    score, ... A large value gives the plain ranking by score.
    picture_weight: share of each of a question's pictures, beside its text, in what is searched
    for.
    ram_bytes: RAM for embeddings (128 numbers at a frame a second: 44 MB a day). Beyond it they go
    to a mapped temporary file. Videos of more than 131,072 frames are searched approximately
    (memory/retrieval/frame_index.py), for about 140 bytes a frame on top.
    rows: whose embeddings are ranked: "clip" for those that segments hold, else the key of a
    further frame embedder. A further one may lack segments; their frames are not ranked.
    Partners: `embedder` embeds the question; `queries` is not used.
    """

    def __init__(
        self,
        *,
        embedder: FrameEmbedder | None,
        per_segment: int = 2,
        picture_weight: float = 0.5,
        ram_bytes: int = 512 << 20,
        rows: str = OWN_ROWS,
        queries: Queries | None = None,
    ) -> None:
        if embedder is None:
            raise UserError(
                "retriever=clip needs a frame embedder, and this run has none; use retriever=kv or "
                "uniform"
            )
        if per_segment < 1:
            raise UserError(f"per_segment={per_segment} would rank no frame; set it to 1 or more")
        if not 0 <= picture_weight <= 1:
            raise UserError(
                f"picture_weight={picture_weight} is no share; set it from 0 (the text alone) to 1"
            )
        self.reads = frozenset({rows})
        self._embedder, self._name = embedder, rows
        self._picture_weight = picture_weight
        self._per_segment = per_segment
        self._budget = RamBudget(ram_bytes)
        self._index: dict[str, FrameIndex] = {}
        # of each segment with rows: its first ordinal, and its first row in the index
        self._edges: dict[str, list[int]] = {}
        self._starts: dict[str, list[int]] = {}
        self._has_gaps: set[str] = set()  # videos with a segment without rows
        self._seen: dict[str, int] = {}  # frames that were added, with and without rows
        self._saved: dict[str, int] = {}  # rows in the saved files

    @property
    def name(self) -> str:
        """Whose embeddings are ranked: "clip", or the key of a further frame embedder."""
        return self._name

    @property
    def nbytes(self) -> int:
        return sum(index.nbytes for index in list(self._index.values()))

    def add(self, segment: SegmentIndex) -> None:
        if not is_next(segment, self.frame_count(segment.video_id)):
            return
        video_id, rows = segment.video_id, segment.embeddings(self._name)
        if rows is not None:
            if video_id not in self._index:
                self._edges[video_id], self._starts[video_id] = [], []
                self._index[video_id] = FrameIndex(rows.shape[1], self._budget)
            # place before rows: a search that finds a row must also find its segment
            self._starts[video_id].append(len(self._index[video_id]))
            self._edges[video_id].append(segment.first)
            self._add_rows(video_id, rows)
        elif self._name == OWN_ROWS:
            raise UserError(
                f"segment {segment.number} of video {video_id} has no frame embeddings, "
                "which retriever=clip needs; use "
                f"retriever={'uniform' if segment.key_means is None else 'kv'}, or another bank=DIR"
            )
        else:
            self._has_gaps.add(video_id)
        self._seen[video_id] = segment.first + len(segment)

    def search(self, question: Question, k: int, stretches: Sequence[Stretch]) -> Hits:
        stretches = refuse_unknown(stretches, self.frame_count)
        count = sum(len(self._rows_in(each)) for each in stretches)
        k = min(k, count)
        if k == 0:
            return hits([], [], stretches)
        queries = self.query_rows(question)  # outside of any lock, because it may wait for a GPU
        depth = min(count, 4 * k)
        # search deeper until round 1 alone fills k; at full depth the later rounds fill the rest
        while True:
            places, scores = self._best(queries, depth, stretches)
            rounds = self._rounds(places, stretches)
            if depth == count or int((rounds == 0).sum()) >= k:
                # stable: keeps the order by score within a round
                best = np.argsort(rounds, kind="stable")[:k]
                return hits(places[best], scores[best], stretches)
            depth = min(count, 4 * depth)

    def query_rows(self, question: Question) -> Tensor:
        """[Q, E], unit length: the text, the pictures, or the weighted sum of each picture and the
        text. A frame is as near to the question as to the nearest of these rows: the mean of a
        clip's frames may be near to what no frame of it shows."""
        if question.picture is None:
            return self._embedder.embed_text(question.search_text)[None]
        pictures = self._embedder.embed_frames(question.picture)
        if not question.search_text:
            return pictures
        text = self._embedder.embed_text(question.search_text).to(pictures)
        rows = self._picture_weight * pictures + (1 - self._picture_weight) * text
        return rows / rows.norm(dim=-1, keepdim=True)

    def _best(
        self, queries: Tensor, depth: int, stretches: Sequence[Stretch]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Places int64 and scores float32 of the best frames of all stretches, best first."""
        places, scores, begin = [], [], 0
        for video_id, first, stop in stretches:
            begin += stop - first
            rows = self._rows_in(Stretch(video_id, first, stop))
            if not rows:
                continue
            index = self._index[video_id]
            if queries.shape[-1] != index.width:
                raise UserError(
                    f"the question embeds to {queries.shape[-1]} numbers but the bank's frames to "
                    f"{index.width}; use the frame embedder that the bank was made with"
                )
            found, values = index.search(queries, depth, rows.stop, rows.start)
            places.append(self._ordinals_of(video_id, found) + (begin - stop))
            scores.append(values)
        if len(places) == 1:
            return places[0], scores[0]
        joined, values = np.concatenate(places), np.concatenate(scores)
        order = np.lexsort((joined, -values))[:depth]
        return joined[order], values[order]

    def _rows_in(self, stretch: Stretch) -> range:
        """The rows of the index that belong to frames of a stretch."""
        video_id, first, stop = stretch
        if video_id not in self._has_gaps:
            return range(first, stop)
        return range(*(self._rows_before(video_id, ordinal) for ordinal in (first, stop)))

    def _rows_before(self, video_id: str, ordinal: int) -> int:
        """Number of rows of the frames before an ordinal."""
        if video_id not in self._index:
            return 0
        edges, starts = self._edges[video_id], self._starts[video_id]
        at = bisect_left(edges, ordinal)  # segments with rows that begin before it
        if at == 0:
            return 0
        end = starts[at] if at < len(starts) else len(self._index[video_id])
        return min(starts[at - 1] + ordinal - edges[at - 1], end)

    def _ordinals_of(self, video_id: str, rows: np.ndarray) -> np.ndarray:
        """[k] int64 ordinals of rows of the index."""
        if video_id not in self._has_gaps:
            return rows
        edges, starts = self._edges[video_id], self._starts[video_id]
        segments = [bisect_right(starts, row) - 1 for row in rows.tolist()]
        return rows + np.array([edges[at] - starts[at] for at in segments], np.int64)

    def _add_rows(self, video_id: str, rows: Tensor) -> None:
        index = self._index[video_id]
        was_approximate = index.is_approximate
        index.add(rows)
        if index.is_approximate and not was_approximate:
            log.info(
                "video %s has more than %d frames: from now on its frames are searched "
                "approximately",
                video_id,
                index.switch,
            )

    def _rounds(self, places: np.ndarray, stretches: Sequence[Stretch]) -> np.ndarray:
        """[k] int64: the round of each frame. places: [k], best first."""
        segments = self._segments(places, stretches)
        order = np.argsort(segments, kind="stable")  # frames of a segment together, best first
        # start of each frame's segment in `order`
        first = np.searchsorted(segments[order], segments[order])
        rounds = np.empty(len(places), np.int64)
        rounds[order] = (np.arange(len(places)) - first) // self._per_segment
        return rounds

    def _segments(self, places: np.ndarray, stretches: Sequence[Stretch]) -> np.ndarray:
        """[k] int64: a number for the segment of each frame; no two segments share one."""
        segments = np.empty(len(places), np.int64)
        bases: dict[str, int] = {}  # of a video's numbers
        begin = base = 0
        for video_id, first, stop in stretches:
            edges = self._edges.get(video_id, [])
            if video_id not in bases:
                bases[video_id] = base
                base += len(edges) + 1
            own = (places >= begin) & (places < begin + stop - first)
            segments[own] = [
                bases[video_id] + bisect_right(edges, ordinal)
                for ordinal in (places[own] + (first - begin)).tolist()
            ]
            begin += stop - first
        return segments

    def frame_count(self, video_id: str) -> int:
        return self._seen.get(video_id, 0)

    def load(self, folder: Path, video_id: str, timeline: Timeline) -> None:
        try:
            for block in row_cache.load(self.saved_rows(folder, video_id), timeline):
                if video_id not in self._index:
                    load_block = partial(ivf_block.load, self._saved_blocks(folder, video_id))
                    self._index[video_id] = FrameIndex(
                        block.shape[1], self._budget, load_block=load_block
                    )
                self._add_rows(video_id, torch.from_numpy(block))
        except OSError:
            self.forget(video_id)
        if video_id in self._index:
            count = len(self._index[video_id])
            edges = timeline.edges[: bisect_left(timeline.edges, count)].tolist()
            self._edges[video_id], self._starts[video_id] = edges, edges.copy()
            self._seen[video_id] = self._saved[video_id] = count

    def save(self, folder: Path, video_id: str, timeline: Timeline) -> None:
        index = self._index.get(video_id)
        count = 0 if index is None else len(index)
        # only rows of all frames have the timeline's places
        if (
            index is not None
            and video_id not in self._has_gaps
            and count > self._saved.get(video_id, 0)
        ):
            row_cache.save(self.saved_rows(folder, video_id), count, index.part, timeline)
            ivf_block.save(self._saved_blocks(folder, video_id), index.ivf_blocks)
            self._saved[video_id] = count

    def forget(self, video_id: str) -> None:
        index = self._index.pop(video_id, None)
        if index is not None:
            index.release()
        self._has_gaps.discard(video_id)
        for known in (self._edges, self._starts, self._seen, self._saved):
            known.pop(video_id, None)

    def saved_rows(self, folder: Path, video_id: str) -> Path:
        """Where the rows of a video are saved."""
        return folder / video_id / self._name

    def _saved_blocks(self, folder: Path, video_id: str) -> Path:
        return folder / video_id / f"{self._name}-blocks"
