"""Inverted lists of keys by the queries that look at them, for each layer and KV head: an index for
inner products with queries, after RetrievalAttention (arXiv 2409.10516).

Queries and keys of a head lie in different places. An index whose lists are clusters of keys is
searched from outside, and the lists nearest to a query often hold few of its keys.
RetrievalAttention links keys to the queries that look at them, in a graph. A graph changes with
every later key, which law 3 forbids. So here the lists belong to directions of queries, known
before the first key:

    list(k)   = argmax over lists j of <p_j, k - m>
    search(q) = the keys with the largest <q, k> of the `probes` lists with the largest <p_j, q>

p_j are unit vectors: the directions of clusters of a model's question queries (a profile), or drawn
ones. m is what keys of a head have in common: of the profile, or the mean of the first frame. It
moves all products of a query alike. FAISS keeps the lists and compares; all lists and as many keys
as there are find everything, exactly.
Cost: lists * Dh products for each key once, and about probes / lists of the products of a search;
4 Dh + 8 bytes for each key.
"""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from encoders.errors import UserError
from memory.schema import Stretch

if TYPE_CHECKING:
    import faiss

_SEED = 20_409_105  # of drawn directions


class QueryLists:
    """lists: of each layer and KV head; those of a profile have its number. probes: lists that a
    query searches. nearest: keys that it finds, at most. profile: file of `python -m
    pipeline.evaluation.profiles.query_profile`; None: drawn directions. UserError on a file that
    cannot be read.
    """

    is_exact = False

    def __init__(
        self, *, lists: int = 64, probes: int = 8, nearest: int = 64, profile: str | None = None
    ) -> None:
        for name, value in (("lists", lists), ("probes", probes), ("nearest", nearest)):
            if value < 1:
                raise UserError(f"key_index.{name}={value} must be 1 or more.")
        self._lists, self._probes, self._nearest = lists, probes, nearest
        # [L, H, lists, Dh] and [L, H, Dh]
        self._profile = None if profile is None else _profile(Path(profile))
        self._indexes: dict[str, list[list[faiss.Index]]] = {}  # video -> [L][H]
        self._common: dict[str, np.ndarray] = {}  # video -> [L, H, Dh]
        self._frames: dict[str, int] = {}
        self._lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        return sum(
            index.ntotal * (4 * index.d + 8)
            for layers in list(self._indexes.values())
            for heads in layers
            for index in heads
        )

    def frame_count(self, video_id: str) -> int:
        return self._frames.get(video_id, 0)

    def add(self, video_id: str, keys: np.ndarray) -> None:
        frames, layers, heads, count, width = keys.shape
        keys = keys.astype(np.float32)
        with self._lock:
            if video_id not in self._indexes:
                if not frames:
                    return
                self._common[video_id] = self._mean(keys[0])
                directions = self._directions(layers, heads, width)
                self._indexes[video_id] = [
                    [_empty(directions[layer, head]) for head in range(heads)]
                    for layer in range(layers)
                ]
                self._frames[video_id] = 0
            first = self._frames[video_id]
            ids = np.arange(first, first + frames, dtype=np.int64).repeat(count)
            for layer, indexes in enumerate(self._indexes[video_id]):
                for head, index in enumerate(indexes):
                    own = keys[:, layer, head] - self._common[video_id][layer, head]
                    index.add_with_ids(np.ascontiguousarray(own.reshape(-1, width)), ids)
            self._frames[video_id] = first + frames

    def candidates(self, queries: np.ndarray, stretches: Sequence[Stretch]) -> np.ndarray:
        import faiss

        parameters: Any = faiss.SearchParametersIVF  # its stubs know no names
        first_place, chosen = 0, [np.empty(0, np.int64)]
        with self._lock:
            for video_id, first, stop in stretches:
                options = parameters(sel=faiss.IDSelectorRange(first, stop), nprobe=self._probes)
                for indexes, layer in zip(self._indexes[video_id], queries, strict=True):
                    for index, own in zip(indexes, layer, strict=True):
                        most = min(self._nearest, index.ntotal)
                        _, ids = index.search(np.ascontiguousarray(own), most, params=options)
                        chosen.append(ids[ids >= 0] - first + first_place)
                first_place += stop - first
        return np.unique(np.concatenate(chosen))

    def forget(self, video_id: str) -> None:
        with self._lock:
            for kept in (self._indexes, self._common, self._frames):
                kept.pop(video_id, None)

    def _mean(self, keys: np.ndarray) -> np.ndarray:
        """[L, H, Dh]: what the keys of a head have in common. keys: of the first frame."""
        if self._profile is None:
            mean: np.ndarray = keys.mean(2)
            return mean
        return self._profile[1]

    def _directions(self, layers: int, heads: int, width: int) -> np.ndarray:
        """[L, H, lists, Dh] unit vectors. UserError if the profile is of another model."""
        if self._profile is None:
            rng = np.random.default_rng(_SEED)
            drawn = rng.standard_normal((layers, heads, self._lists, width)).astype(np.float32)
            unit: np.ndarray = drawn / np.linalg.norm(drawn, axis=3, keepdims=True)
            return unit
        directions = self._profile[0]
        own = directions.shape[:2], directions.shape[3]
        if own != ((layers, heads), width):
            raise UserError(
                f"key_index.profile= is of a model with {own[0][0]} layers, {own[0][1]} KV heads "
                f"and heads of {own[1]} numbers, and the bank has {layers}, {heads} and {width}; "
                "make one of the bank's model."
            )
        return directions


def _empty(directions: np.ndarray) -> "faiss.Index":
    """Lists of unit vectors [lists, Dh]."""
    import faiss

    lists, width = directions.shape
    quantizer = faiss.IndexFlatIP(width)
    quantizer.add(np.ascontiguousarray(directions))
    index = faiss.IndexIVFFlat(quantizer, width, lists, faiss.METRIC_INNER_PRODUCT)
    return index


def _profile(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Directions [L, H, lists, Dh] and means [L, H, Dh]."""
    try:
        with np.load(path) as file:
            directions, common = (np.float32(file[name]) for name in ("directions", "common"))
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"key_index.profile={path} cannot be read as a profile of queries; make one with "
            "python -m pipeline.evaluation.profiles.query_profile."
        ) from error
    shape = directions.shape
    if len(shape) != 4 or (*shape[:2], shape[3]) != common.shape:
        raise UserError(f"key_index.profile={path} has arrays that do not fit each other.")
    return directions, common
