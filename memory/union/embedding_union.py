"""The rows of further frame embedders of several banks, for reading.

A read of a segment gets its rows from the store of that segment (memory/union/store_union.py).
"""

from collections.abc import Sequence

from memory.embeddings.store import EmbeddingStore
from memory.union.video_places import VideoPlaces


class EmbeddingUnion(EmbeddingStore):
    """How much the rows of each video take."""

    def __init__(self, stores: Sequence[EmbeddingStore], places: VideoPlaces) -> None:
        self._stores, self._places = tuple(stores), places

    def nbytes(self, video_id: str) -> int:
        return self._stores[self._places.of(video_id)].nbytes(video_id)
