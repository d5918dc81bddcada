"""Search with the language model's own eyes: the question's queries against the mean key of each frame, per layer.

Knows no model: the queries come from a partner, keys and queries are both from before rotary embedding. Query heads
that share a key head are summed before they are handed in: same ranking, an index several times smaller.
"""

from pathlib import Path

import numpy as np
import torch

from encoders.errors import UserError
from encoders.schema import FrameEmbedder
from memory.retrieval import row_cache, topk
from memory.retrieval.common import Queries, hits, is_next, refuse_unknown
from memory.retrieval.row_buffer import RamBudget, Rows
from memory.schema import Hits, Question, SegmentIndex
from memory.timeline import Timeline

_IN_CACHE = 1 << 20  # numbers that are worked on at a time: of the embedded model a block of rows


class KVRetriever:
    """Frames whose keys answer the question's queries best.

    Each layer's dot products are z-scored over the visible frames, and the mean over layers is one ranking for all
    layers (a loud layer cannot outvote the others, and a frame is read once for all).
    per_layer: also name each layer's own best frames (Hits.per_layer), as ReKV reads; costs reading their union.
    top: with per_layer, the most frames that a layer names, and no frame is named that no layer does; None = what the budget
    holds.
    similarity: "dot" or "cosine". A plain dot product also prefers frames whose keys are long.
    ram_bytes: RAM for mean keys in float16 (a 7B model at 1 frame a second: about 100 MB an hour); beyond it they go to
    a mapped temporary file.
    Partners: `queries` turns the question into [L, H * Dh]; `embedder` is not used.
    """

    reads = frozenset({"key_means"})

    def __init__(
        self,
        *,
        queries: Queries | None,
        per_layer: bool = False,
        top: int | None = None,
        similarity: str = "dot",
        ram_bytes: int = 512 << 20,
        embedder: FrameEmbedder | None = None,
    ) -> None:
        if queries is None:
            raise UserError(
                "retriever=kv needs a backbone that gives queries, and this run has none; use another one"
            )
        if similarity not in ("dot", "cosine"):
            raise UserError(f"retriever.similarity={similarity} is not known; use dot or cosine")
        if top is not None and (top < 1 or not per_layer):
            raise UserError(
                f"retriever.top={top} needs to be 1 or more, and retriever.per_layer=true; leave it out"
            )
        self._queries = queries
        self._per_layer, self._top, self._cosine = per_layer, top, similarity == "cosine"
        self._budget = RamBudget(ram_bytes)
        self._rows: dict[str, Rows] = {}  # each [T, L, H * Dh]
        self._saved: dict[str, int] = {}  # rows that are kept in files

    @property
    def nbytes(self) -> int:
        return sum(rows.nbytes for rows in list(self._rows.values()))

    def add(self, segment: SegmentIndex) -> None:
        if not is_next(segment, self.known(segment.video_id)):
            return
        if segment.key_means is None:
            raise UserError(
                f"segment {segment.number} of video {segment.video_id} has no keys, which retriever=kv needs; "
                "use retriever=clip or uniform, or another bank=DIR"
            )
        if segment.video_id not in self._rows:
            self._rows[segment.video_id] = Rows(tuple(segment.key_means.shape[1:]), self._budget)
        self._rows[segment.video_id].append(segment.key_means.float().cpu().numpy())

    def search(self, question: Question, k: int, visible: int, first: int = 0) -> Hits:
        refuse_unknown(question, self.known(question.video_id), visible)
        k = min(k, visible - first)
        if k == 0:
            return hits([], [])
        rows = self._rows[question.video_id]
        queries = self._queries(question.text).detach().float().cpu().numpy()  # [L, H * Dh]
        if queries.shape != rows.shape:
            raise UserError(
                f"the question's queries are {list(queries.shape)} but the bank's keys {list(rows.shape)}; "
                "use the backbone that the bank was made with"
            )
        scores = self._compared(rows, queries, first, visible)  # [L, visible - first]
        shared = _standardise(scores)  # [visible - first]
        best = topk.best(shared, k)
        found = hits(first + best, shared[best])
        if not self._per_layer:
            return found
        # [L, k or top]
        own = np.stack([topk.best(layer, min(k, self._top or k)) for layer in scores])
        if self._top is not None:
            named = np.unique(own)
            best = named[topk.best(shared[named], len(named))]
            found = hits(first + best, shared[best])
        return Hits(found.frames, found.scores, hits(first + own, []).frames)

    def _compared(self, rows: Rows, queries: np.ndarray, first: int, stop: int) -> np.ndarray:
        """[L, stop - first] float32: each layer's products of rows first..stop-1 with [L, W] queries."""
        # Few outputs of many numbers are a matter of reading them once: einsum took half the time of multiplying and adding up,
        # and a matrix product five times as long. A row's score is the same wherever it stands
        scores = np.empty((len(queries), stop - first), np.float32)
        step = max(1, _IN_CACHE // queries.size)
        wide = torch.empty((min(step, rows.block), *queries.shape))
        at = 0
        for block in rows.blocks(stop, first):  # [t, L, W] float16
            for keys in np.split(block, range(step, len(block), step)):
                # numpy widens ten times slower
                part = wide[: len(keys)].copy_(torch.from_numpy(keys)).numpy()
                found = np.einsum("tlw,lw->tl", part, queries)
                if self._cosine:  # a query's own length changes no ranking of its layer
                    lengths = np.sqrt(np.einsum("tlw,tlw->tl", part, part))
                    found = np.divide(found, lengths, out=np.zeros_like(found), where=lengths > 0)
                scores[:, at : at + len(keys)] = found.T
                at += len(keys)
        return scores

    def known(self, video_id: str) -> int:
        return len(self._rows.get(video_id, ()))

    def load(self, folder: Path, video_id: str, timeline: Timeline) -> None:
        try:
            for block in row_cache.load(folder / video_id / "keys", timeline):
                if video_id not in self._rows:
                    self._rows[video_id] = Rows(block.shape[1:], self._budget)
                self._rows[video_id].append(block)
        except OSError:
            self.forget(video_id)
        self._saved[video_id] = self.known(video_id)

    def save(self, folder: Path, video_id: str, timeline: Timeline) -> None:
        known = self.known(video_id)
        if known > self._saved.get(video_id, 0):
            row_cache.save(folder / video_id / "keys", known, self._rows[video_id].part, timeline)
            self._saved[video_id] = known

    def forget(self, video_id: str) -> None:
        self._saved.pop(video_id, None)
        rows = self._rows.pop(video_id, None)
        if rows is not None:
            rows.release()


def _standardise(scores: np.ndarray) -> np.ndarray:
    """Make each layer of [L, T] have mean 0 and deviation 1 over the frames, in place; a layer that sees no difference says
    nothing. Returns their mean over layers: [T]."""
    shared = np.zeros(scores.shape[1], np.float32)
    for layer in scores:  # one after the other, they stay in the cache
        layer -= layer.mean()
        spread = layer.std()
        if spread > 0:
            layer /= spread
        else:
            layer[:] = 0.0
        shared += layer
    return shared / np.float32(len(scores))
