"""Frames by attention: the question's queries against what is kept of each frame's keys, per layer
and head (ReKV, arXiv 2503.00540).

Knows no model: the queries come from a partner. Keys and queries are both taken before rotary
embedding. What is kept of the keys, and how it scores, is a part of its own (block_score/). Where
the scores of a sum are the sum of the scores, query heads that share a key head are summed first.
"""

import math
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from encoders.errors import UserError
from encoders.models.loading.retrieval_heads import RetrievalHeads
from encoders.schema import FrameEmbedder
from memory.retrieval import row_cache, topk
from memory.retrieval.block_score.attention_scan import attention_scan
from memory.retrieval.block_score.mean_key import MeanKey
from memory.retrieval.block_score.query_pools import MeanQuery
from memory.retrieval.block_score.representative_keys import RepresentativeKeys
from memory.retrieval.block_score.schema import BlockScore, QueryPool
from memory.retrieval.common import Queries, hits, is_next, refuse_unknown
from memory.retrieval.key_index.schema import KeyIndex, NoIndex
from memory.retrieval.row_buffer import RamBudget, RowBuffer
from memory.schema import Hits, Question, SegmentIndex, Stretch
from memory.timeline import Timeline

# numbers per step, so that a step stays in the CPU cache: a block of rows of the embedded model
_CACHE_NUMBERS = 1 << 20
_ROUNDING = 1e-6  # deviation relative to the mean, up to which all numbers of a row count as equal
_VOTES = ("head", "layer", "softmax")


class KVRetriever:
    """Frames whose keys match the question's queries best.

    block_score: what is kept of a frame's keys, and how it scores; None: mean keys. query_pool:
    which queries of the question search; None: the mean of its tokens. key_index: which frames are
    compared, for scores that keep keys as they are; None: all.
    normalize: how the heads vote. "head": each head's scores are z-scored over all searched frames,
    and their mean over heads and layers is one ranking for all layers, so neither a layer nor a
    head with large scores can outvote the others. "layer": the heads' scores are summed as they
    are, and each layer's sum is z-scored. "softmax": each head's scores become shares of 1 over the
    searched frames, and the shares are added up (the soft vote of TokenSelect, arXiv 2411.02886):
    a head that knows one frame says so, and no head has more than its share.
    per_layer: also rank each layer's own best frames (Hits.per_layer), as ReKV does; their union is
    read.
    per_head: also rank the best frames of each query head of each layer (Hits.per_head), after
    LongHeads (arXiv 2402.10685); what the budget holds of their union is read, and each head reads
    its own `top` of it.
    heads: file of the query heads that vote (pipeline.evaluation.retrieval_heads), after Retrieval
    Head (arXiv 2404.15574); None: all.
    top: with per_layer, how many frames each layer may rank; only these are ranked at all. None: as
    many as the budget holds. With per_head, how many frames each head reads.
    layer_budget: with per_layer, how the layers divide the budget. "even", or "density": a layer
    whose scores are spread over more frames gets more of them (after ActQKV, arXiv 2502.13542).
    scan_frames: with normalize="softmax", frames of a window; windows are compared one after
    another, each with the `scan_keep` best frames so far (block_score/attention_scan.py). None: all
    frames at once.
    similarity: "dot" or "cosine", of mean keys. A plain dot product also prefers frames whose keys
    are long.
    ram_bytes: RAM for rows (mean keys of a 7B model at 1 frame a second: about 100 MB an hour).
    Beyond it they go to a mapped temporary file.
    Partners: `queries` turns the question into [n, L, Hq, Dh]; `embedder` is not used.
    """

    def __init__(
        self,
        *,
        queries: Queries | None,
        block_score: BlockScore | None = None,
        query_pool: QueryPool | None = None,
        key_index: KeyIndex | None = None,
        normalize: str = "head",
        per_layer: bool = False,
        per_head: bool = False,
        heads: str | None = None,
        top: int | None = None,
        layer_budget: str = "even",
        scan_frames: int | None = None,
        scan_keep: int = 16,
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
        if normalize not in _VOTES:
            raise UserError(
                f"retriever.normalize={normalize} is not known; use {', '.join(_VOTES[:-1])} or "
                f"{_VOTES[-1]}"
            )
        if top is not None and (top < 1 or not (per_layer or per_head)):
            raise UserError(
                f"retriever.top={top} needs to be 1 or more, and retriever.per_layer=true or "
                "retriever.per_head=true; leave it out"
            )
        if per_head and top is None:
            raise UserError(
                "retriever.per_head=true needs retriever.top=: the number of frames that each head "
                "reads"
            )
        if (per_layer or heads is not None) and per_head:
            raise UserError(
                f"retriever.{'per_layer=true' if per_layer else 'heads='} and "
                "retriever.per_head=true do not fit each other; leave one out"
            )
        if per_head and normalize == "layer":
            raise UserError(
                "retriever.normalize=layer sums up the heads of a layer, which "
                "retriever.per_head=true needs apart; use head or softmax"
            )
        if heads is not None and (per_layer or normalize == "layer"):
            raise UserError(
                "retriever.heads= lets single heads vote for all layers; leave out "
                f"{'retriever.per_layer=true' if per_layer else 'retriever.normalize=layer'}"
            )
        if scan_frames is not None and (normalize != "softmax" or per_layer or per_head):
            raise UserError(
                f"retriever.scan_frames={scan_frames} compares shares of attention of all layers; "
                "use retriever.normalize=softmax, without per_layer and per_head"
            )
        if scan_keep < 1 or (scan_frames is not None and scan_frames < 1):
            raise UserError(
                f"retriever.scan_frames={scan_frames} retriever.scan_keep={scan_keep} compares "
                "nothing; use 1 or more of each"
            )
        self._scan = None if scan_frames is None else (scan_frames, scan_keep)
        self._per_head = per_head
        self._heads = None if heads is None else RetrievalHeads.read(Path(heads))
        if layer_budget not in ("even", "density"):
            raise UserError(
                f"retriever.layer_budget={layer_budget} is not known; use even or density"
            )
        if layer_budget != "even" and not per_layer:
            raise UserError(
                f"retriever.layer_budget={layer_budget} needs retriever.per_layer=true; leave it "
                "out"
            )
        self._by_density = layer_budget == "density"
        self._score = block_score or MeanKey()
        if similarity == "cosine":
            if not isinstance(self._score, MeanKey):
                raise UserError(
                    "retriever.similarity=cosine compares mean keys; use block_score=mean_key, or "
                    "leave it out"
                )
            self._score = MeanKey(cosine=True)
        self._index: KeyIndex = key_index or NoIndex()
        self._indexing = threading.Lock()
        if not (self._index.is_exact or isinstance(self._score, MeanKey | RepresentativeKeys)):
            raise UserError(
                "key_index= finds keys as they are; use block_score=mean_key or representative, or "
                "leave it out"
            )
        self.reads = self._score.reads
        self._queries, self._pool = queries, query_pool or MeanQuery()
        self._vote, self._per_layer, self._top = normalize, per_layer, top
        self._budget = RamBudget(ram_bytes)
        self._rows: dict[str, RowBuffer] = {}  # each [T, L, W]
        self._saved: dict[str, int] = {}  # rows in the saved files

    @property
    def nbytes(self) -> int:
        return sum(rows.nbytes for rows in list(self._rows.values())) + self._index.nbytes

    def add(self, segment: SegmentIndex) -> None:
        if not is_next(segment, self.frame_count(segment.video_id)):
            return
        rows = self._score.rows(segment)
        if rows is None:
            raise UserError(
                f"segment {segment.number} of video {segment.video_id} has no keys, which "
                f"retriever=kv needs; use retriever={'clip' if segment.has_clip else 'uniform'}, "
                "or another bank=DIR"
            )
        if segment.video_id not in self._rows:
            self._rows[segment.video_id] = self._new_buffer(rows.shape[1:])
        self._rows[segment.video_id].append(rows)

    def search(self, question: Question, k: int, stretches: Sequence[Stretch]) -> Hits:
        stretches = refuse_unknown(stretches, self.frame_count)
        count = sum(map(len, stretches))
        k = min(k, count)
        if k == 0:
            return hits([], [], stretches)
        asked = self._pool(self._queries(question.search_text).detach().float().cpu())
        queries = self._grouped(asked, self._rows[stretches[0].video_id].shape)
        candidates = None  # places that are compared; None: all
        tokens = len(asked)
        if self._score.keep < 1:
            coarse = self._votes(self._scores(stretches, queries, coarse=True), tokens).mean(0)
            most = max(k, math.ceil(self._score.keep * count))
            candidates = np.sort(topk.best(coarse, min(most, count)))
        elif not self._index.is_exact:
            for video_id in {each.video_id for each in stretches}:
                self._index_rows(video_id, queries.shape[1], queries.shape[3])
            candidates = _at_least(self._index.candidates(queries, stretches), k, count)
        every = self._scores(stretches, queries, candidates)  # [L, H, G, candidates]
        if self._per_head:
            return self._ranked_by_head(_by_head(every, tokens), k, candidates, stretches)
        if self._scan is not None:
            own_heads = every if self._heads is None else self._of_heads(_by_head(every, tokens))
            scores = attention_scan(own_heads.reshape(-1, every.shape[3]), *self._scan)[None]
        else:
            scores = self._votes(every, tokens)  # [L, candidates]; [1, candidates] of single heads
        shared = scores.mean(0)
        best = topk.best(shared, k)
        # [L, k or top]
        own = (
            np.stack([topk.best(layer, min(k, self._top or k)) for layer in scores])
            if self._per_layer
            else None
        )
        if own is not None and self._top is not None:
            union = np.unique(own)
            best = union[topk.best(shared[union], len(union))]
        ranked = hits(_places(best, candidates), shared[best], stretches)
        if own is None:
            return ranked
        shares = None
        if self._by_density:
            shares = torch.from_numpy(_densities(scores, are_shares=self._vote == "softmax"))
        places = torch.from_numpy(_places(own, candidates))
        return replace(ranked, per_layer=places, layer_shares=shares)

    def _grouped(self, queries: Tensor, shape: tuple[int, ...]) -> np.ndarray:
        """[L, H, G, Dh] float32, with the attention's scaling: queries [m, L, Hq, Dh] by the KV
        head that they are compared with. UserError if they are not of the bank's model. shape: of
        a row, [L, W].
        """
        _, layers, query_heads, width = queries.shape
        heads, rest = divmod(shape[1], self._score.numbers(width))
        if (layers, rest) != (shape[0], 0) or not heads or query_heads % heads:
            raise UserError(
                f"the question's queries are {list(queries.shape[1:])} but the bank's rows of keys "
                f"{list(shape)}; "
                "use the backbone that the bank was made with"
            )
        grouped = queries.unflatten(2, (heads, -1))  # [m, L, H, group, Dh]
        apart = self._vote == "softmax" or self._per_head or self._heads is not None
        if self._score.is_linear and not apart:
            grouped = grouped.sum(3, keepdim=True)
        return (grouped.permute(1, 2, 0, 3, 4).flatten(2, 3) * width**-0.5).contiguous().numpy()

    def _votes(self, scores: np.ndarray, tokens: int) -> np.ndarray:
        """[L, T]: the scores [L, H, G, T] of all queries as one score of each layer; [1, T] where
        single heads vote. May change them.
        """
        if self._heads is None:
            scores = scores.reshape(len(scores), -1, scores.shape[3])
        else:
            scores = self._of_heads(_by_head(scores, tokens))
        if self._vote == "layer":
            scores = scores.sum(1, keepdims=True)
        rows = scores.reshape(-1, scores.shape[2])
        (_shares if self._vote == "softmax" else _standardize)(rows)
        votes: np.ndarray = rows.reshape(scores.shape).mean(1)
        return votes

    def _of_heads(self, scores: np.ndarray) -> np.ndarray:
        """[1, N, T]: the scores [L, Hq, m, T] of the heads that vote, as if of one layer. UserError
        if they are of another model.
        """
        assert self._heads is not None
        layers, heads, _, frames = scores.shape
        pairs = [(layer, head) for layer, own in self._heads.of_layers.items() for head in own]
        for layer, head in pairs:
            if not (0 <= layer < layers and 0 <= head < heads):
                raise UserError(
                    f"retriever.heads= names head {head} of layer {layer}, and the model has "
                    f"{layers} layers of {heads} heads; give the file of this model"
                )
        return scores[tuple(np.transpose(pairs))].reshape(1, -1, frames)

    def _ranked_by_head(
        self,
        scores: np.ndarray,
        k: int,
        candidates: np.ndarray | None,
        stretches: Sequence[Stretch],
    ) -> Hits:
        """The ranking of all heads, and each head's own. scores: [L, Hq, m, T]."""
        rows = np.ascontiguousarray(scores).reshape(-1, scores.shape[3])
        (_shares if self._vote == "softmax" else _standardize)(rows)
        own = rows.reshape(scores.shape).mean(2)  # [L, Hq, T]
        best = np.stack([[topk.best(head, k) for head in layer] for layer in own])
        # a frame stands where the head that likes it most has it; of equal ones, votes decide
        ranks = np.full(own.shape[2], k)
        np.minimum.at(ranks, best.reshape(-1), np.tile(np.arange(k), best.shape[0] * best.shape[1]))
        votes = own.mean((0, 1))
        wishes = (k - ranks + 1 / (1 + np.exp(-votes))).astype(np.float32)
        ranked = topk.best(wishes, k)
        return replace(
            hits(_places(ranked, candidates), wishes[ranked], stretches),
            per_head=torch.from_numpy(_places(best, candidates)),
            head_frames=self._top,
        )

    def _scores(
        self,
        stretches: Sequence[Stretch],
        queries: np.ndarray,
        candidates: np.ndarray | None = None,
        *,
        coarse: bool = False,
    ) -> np.ndarray:
        """[L, H, G, T] float32: the scores of all frames of the stretches, or of those at the
        rising places.
        """
        # The work is reading the rows once: einsum took half the time of multiplying and summing,
        # and a matrix product took five times as long. With einsum the score of a row does not
        # depend on the rows around it.
        layers, heads, group, width = queries.shape
        count = sum(map(len, stretches)) if candidates is None else len(candidates)
        scores = np.empty((layers, heads * group, count), np.float32)
        numbers = layers * heads * max(self._score.numbers(width), group)
        step = max(1, _CACHE_NUMBERS // numbers)
        at = 0
        for block in self._blocks(stretches, candidates):  # [t, L, W]
            for rows in np.split(block, range(step, len(block), step)):
                part = self._score.scores(rows, queries, coarse=coarse)  # [t, L, H, G]
                scores[:, :, at : at + len(rows)] = part.reshape(len(rows), layers, -1).transpose(
                    1, 2, 0
                )
                at += len(rows)
        return scores.reshape(layers, heads, group, count)

    def _blocks(
        self, stretches: Sequence[Stretch], candidates: np.ndarray | None
    ) -> Iterator[np.ndarray]:
        """Rows of the stretches one after another, or of the places therein."""
        first_place = 0
        for video_id, first, stop in stretches:
            rows = self._rows[video_id]
            if candidates is None:
                yield from rows.blocks(stop, first)
            else:
                low, high = np.searchsorted(candidates, [first_place, first_place + stop - first])
                yield rows.take(candidates[low:high] - first_place + first)
            first_place += stop - first

    def _index_rows(self, video_id: str, heads: int, width: int) -> None:
        """Let the index know every frame of a video. heads, width: of the keys."""
        rows = self._rows[video_id]
        with self._indexing:
            for block in rows.blocks(len(rows), self._index.frame_count(video_id)):
                if len(block):
                    keys = block.reshape(*block.shape[:2], heads, -1, width)
                    self._index.add(video_id, keys)

    def _new_buffer(self, shape: tuple[int, ...]) -> RowBuffer:
        return RowBuffer(shape, self._budget, self._score.dtype)

    def frame_count(self, video_id: str) -> int:
        return len(self._rows.get(video_id, ()))

    def load(self, folder: Path, video_id: str, timeline: Timeline) -> None:
        try:
            for block in row_cache.load(folder / video_id / self._score.rows_name, timeline):
                if video_id not in self._rows:
                    self._rows[video_id] = self._new_buffer(block.shape[1:])
                self._rows[video_id].append(block)
        except OSError:
            self.forget(video_id)
        self._saved[video_id] = self.frame_count(video_id)

    def save(self, folder: Path, video_id: str, timeline: Timeline) -> None:
        count = self.frame_count(video_id)
        if count > self._saved.get(video_id, 0):
            place = folder / video_id / self._score.rows_name
            row_cache.save(place, count, self._rows[video_id].part, timeline)
            self._saved[video_id] = count

    def forget(self, video_id: str) -> None:
        self._saved.pop(video_id, None)
        self._index.forget(video_id)
        rows = self._rows.pop(video_id, None)
        if rows is not None:
            rows.release()


def _by_head(scores: np.ndarray, tokens: int) -> np.ndarray:
    """[L, Hq, m, T]: scores [L, H, G, T] of m tokens by query head, in the order of the model:
    those of a KV head side by side.
    """
    layers, heads, queries, frames = scores.shape
    apart = scores.reshape(layers, heads, tokens, queries // tokens, frames)
    return apart.swapaxes(2, 3).reshape(layers, -1, tokens, frames)


def _at_least(candidates: np.ndarray, k: int, count: int) -> np.ndarray:
    """Rising places, with the first others of `count` where they are fewer than k."""
    if len(candidates) >= k:
        return candidates
    others = np.setdiff1d(np.arange(count), candidates)[: k - len(candidates)]
    return np.sort(np.concatenate([candidates, others]))


def _places(chosen: np.ndarray, candidates: np.ndarray | None) -> np.ndarray:
    """Places of the numbers of candidates."""
    return chosen if candidates is None else candidates[chosen]


def _densities(scores: np.ndarray, *, are_shares: bool) -> np.ndarray:
    """[L] float32, sum 1: over how many frames each layer's scores [L, T] are spread, relative to
    the others. The number is exp(entropy) of their softmax: T if all are equal, 1 if one has all.
    are_shares: the scores are shares of 1 already.
    """
    votes = scores.copy()
    if not are_shares:
        _shares(votes)
    entropy = -(votes * np.log(np.maximum(votes, np.finfo(np.float32).tiny))).sum(1)
    spread = np.exp(entropy)
    densities: np.ndarray = (spread / spread.sum()).astype(np.float32)
    return densities


def _shares(rows: np.ndarray) -> None:
    """Make each row of [N, T] shares of 1, by softmax, in place."""
    for row in rows:
        row -= row.max()
        np.exp(row, out=row)
        row /= row.sum()


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
