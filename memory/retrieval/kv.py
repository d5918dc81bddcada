"""Frames by attention: the question's queries against the mean key of each frame, per layer (ReKV,
arXiv 2503.00540).

Knows no model: the queries come from a partner. Keys and queries are both taken before rotary
embedding. Query heads that share a key head arrive summed, which gives the same dot products with
an index several times smaller.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from encoders.errors import UserError
from encoders.schema import FrameEmbedder
from memory.retrieval import row_cache, topk
from memory.retrieval.common import Queries, hits, is_next, refuse_unknown
from memory.retrieval.row_buffer import RamBudget, RowBuffer
from memory.schema import Hits, Question, SegmentIndex, Stretch
from memory.timeline import Timeline

# numbers per step, so that a step stays in the CPU cache: a block of rows of the embedded model
_CACHE_NUMBERS = 1 << 20
_ROUNDING = 1e-6  # deviation relative to the mean, up to which all numbers of a row count as equal


class KVRetriever:
    """Frames whose keys match the question's queries best.

    Each head's dot products are z-scored over all searched frames; their mean over heads and layers
    is one ranking for all layers. So neither a layer nor a head with large scores can outvote the
    others, and all layers read the same frames.
    normalize: "head", or "layer": the heads' dot products are summed as they are, and each layer's
    sum is z-scored.
    per_layer: also rank each layer's own best frames (Hits.per_layer), as ReKV does; their union is
    read.
    top: with per_layer, how many frames each layer may rank; only these are ranked at all. None: as
    many as the budget holds.
    similarity: "dot" or "cosine". A plain dot product also prefers frames whose keys are long.
    ram_bytes: RAM for mean keys in float16 (a 7B model at 1 frame a second: about 100 MB an hour).
    Beyond it they go to a mapped temporary file.
    Partners: `queries` turns the question into [L, H, Dh]; `embedder` is not used.
    """

    reads = frozenset({"key_means"})

    def __init__(
        self,
        *,
        queries: Queries | None,
        normalize: str = "head",
        per_layer: bool = False,
        top: int | None = None,
        similarity: str = "dot",
        ram_bytes: int = 512 << 20,
        embedder: FrameEmbedder | None = None,
    ) -> None:
        if queries is None:
            raise UserError(
                "retriever=kv needs a backbone that gives queries, and this run has none; use "
                "another one"
            )
        if similarity not in ("dot", "cosine"):
            raise UserError(f"retriever.similarity={similarity} is not known; use dot or cosine")
        if normalize not in ("head", "layer"):
            raise UserError(f"retriever.normalize={normalize} is not known; use head or layer")
        if top is not None and (top < 1 or not per_layer):
            raise UserError(
                f"retriever.top={top} needs to be 1 or more, and retriever.per_layer=true; leave "
                "it out"
            )
        self._queries, self._by_head = queries, normalize == "head"
        self._per_layer, self._top, self._cosine = per_layer, top, similarity == "cosine"
        self._budget = RamBudget(ram_bytes)
        self._rows: dict[str, RowBuffer] = {}  # each [T, L, H * Dh]
        self._saved: dict[str, int] = {}  # rows in the saved files

    @property
    def nbytes(self) -> int:
        return sum(rows.nbytes for rows in list(self._rows.values()))

    def add(self, segment: SegmentIndex) -> None:
        if not is_next(segment, self.frame_count(segment.video_id)):
            return
        if segment.key_means is None:
            raise UserError(
                f"segment {segment.number} of video {segment.video_id} has no keys, which "
                f"retriever=kv needs; use retriever={'clip' if segment.has_clip else 'uniform'}, "
                "or another bank=DIR"
            )
        if segment.video_id not in self._rows:
            self._rows[segment.video_id] = RowBuffer(
                tuple(segment.key_means.shape[1:]), self._budget
            )
        self._rows[segment.video_id].append(segment.key_means.float().cpu().numpy())

    def search(self, question: Question, k: int, stretches: Sequence[Stretch]) -> Hits:
        stretches = refuse_unknown(stretches, self.frame_count)
        count = sum(map(len, stretches))
        k = min(k, count)
        if k == 0:
            return hits([], [], stretches)
        queries = self._queries(question.search_text).detach().float().cpu()  # [L, H, Dh]
        shape = self._rows[stretches[0].video_id].shape
        if queries.flatten(1).shape != shape:
            raise UserError(
                f"the question's queries are {list(queries.flatten(1).shape)} but the bank's keys "
                f"{list(shape)}; "
                "use the backbone that the bank was made with"
            )
        if not self._by_head:
            queries = queries.flatten(1)[:, None]  # as if a layer had one head
        products = [
            self._products(self._rows[video_id], queries, first, stop)
            for video_id, first, stop in stretches
        ]
        joined = products[0] if len(products) == 1 else np.concatenate(products, axis=1)
        _standardize(joined)  # [L * H, count]
        scores = joined.reshape(len(queries), -1, count).mean(1)  # [L, count]
        shared = scores.mean(0)  # [count]
        best = topk.best(shared, k)
        ranked = hits(best, shared[best], stretches)
        if not self._per_layer:
            return ranked
        # [L, k or top]
        own = np.stack([topk.best(layer, min(k, self._top or k)) for layer in scores])
        if self._top is not None:
            union = np.unique(own)
            best = union[topk.best(shared[union], len(union))]
            ranked = hits(best, shared[best], stretches)
        return replace(ranked, per_layer=torch.from_numpy(own))

    def _products(self, rows: RowBuffer, queries: Tensor, first: int, stop: int) -> np.ndarray:
        """[L * H, stop - first] float32: each head's dot product (or cosine) of rows first..stop-1
        with queries [L, H, Dh]."""
        # The work is reading the rows once: einsum took half the time of multiplying and summing,
        # and a matrix product took five times as long. With einsum the score of a row does not
        # depend on the rows around it.
        layers, heads, width = queries.shape
        products = np.empty((layers * heads, stop - first), np.float32)
        step = max(1, _CACHE_NUMBERS // queries.numel())
        wide = torch.empty((min(step, rows.block), layers, heads, width))
        at = 0
        for block in rows.blocks(stop, first):  # [t, L, H * Dh] float16
            for keys in np.split(block, range(step, len(block), step)):
                # torch converts to float32 ten times faster than numpy
                part = wide[: len(keys)]
                part.flatten(2).copy_(torch.from_numpy(keys))
                scores = np.einsum("tlhd,lhd->tlh", part.numpy(), queries.numpy())
                if self._cosine:  # the length of the query does not change the ranking of its head
                    lengths = np.sqrt(np.einsum("tlhd,tlhd->tlh", part.numpy(), part.numpy()))
                    scores = np.divide(
                        scores, lengths, out=np.zeros_like(scores), where=lengths > 0
                    )
                products[:, at : at + len(keys)] = scores.reshape(len(keys), -1).T
                at += len(keys)
        return products

    def frame_count(self, video_id: str) -> int:
        return len(self._rows.get(video_id, ()))

    def load(self, folder: Path, video_id: str, timeline: Timeline) -> None:
        try:
            for block in row_cache.load(folder / video_id / "keys", timeline):
                if video_id not in self._rows:
                    self._rows[video_id] = RowBuffer(block.shape[1:], self._budget)
                self._rows[video_id].append(block)
        except OSError:
            self.forget(video_id)
        self._saved[video_id] = self.frame_count(video_id)

    def save(self, folder: Path, video_id: str, timeline: Timeline) -> None:
        count = self.frame_count(video_id)
        if count > self._saved.get(video_id, 0):
            row_cache.save(folder / video_id / "keys", count, self._rows[video_id].part, timeline)
            self._saved[video_id] = count

    def forget(self, video_id: str) -> None:
        self._saved.pop(video_id, None)
        rows = self._rows.pop(video_id, None)
        if rows is not None:
            rows.release()


def _standardize(rows: np.ndarray) -> None:
    """Scale each row of [N, T] to mean 0 and deviation 1, in place; a constant row becomes 0."""
    for row in rows:  # one at a time stays in the CPU cache
        mean = row.mean()
        row -= mean
        # one pass; `std` takes four
        spread = np.sqrt(row.dot(row) / len(row))
        if spread > _ROUNDING * abs(mean):
            row *= 1 / spread
        else:
            row[:] = 0.0
