"""The stores of several banks as one, for reading. A video comes from the first bank that has it.

What searches and reads works on it as on one store, so the ranking of a question, its frames and
its answer are those of one bank with all videos. Knows files through the stores; no questions.
"""

from collections.abc import Sequence, Set
from pathlib import Path

from encoders.schema import KVBlock, Segment, VisualTokens
from memory.schema import SegmentIndex
from memory.store import DiskStore
from memory.union.catalog_union import CatalogUnion, ChangesUnion
from memory.union.embedding_union import EmbeddingUnion
from memory.union.encoded_union import EncodedUnion
from memory.union.text_union import TextUnion
from memory.union.video_places import VideoPlaces


class StoreUnion(DiskStore):
    """Segments and lines of several folders. The methods that write belong to the first store, and
    a bank of it lets nobody call them."""

    def __init__(self, stores: Sequence[DiskStore]) -> None:
        first = stores[0]
        self._stores = tuple(stores)
        self.places = VideoPlaces([store.changes for store in stores])
        self.root, self.storage_format = first.root, first.storage_format
        self.window, self.database = first.window, first.database
        self.catalog_writer = first.catalog_writer
        self.changes = ChangesUnion([store.changes for store in stores], self.places)
        self.embeddings = EmbeddingUnion([store.embeddings for store in stores], self.places)
        self.encoded = EncodedUnion([store.encoded for store in stores], self.places)
        self.catalog = CatalogUnion([store.catalog for store in stores], self.places)
        self.text = TextUnion([store.text for store in stores], self.places)

    def path(self, video_id: str, number: int) -> Path:
        return self._of(video_id).path(video_id, number)

    def get(self, video_id: str, number: int) -> Segment:
        return self._of(video_id).get(video_id, number)

    def frames(
        self, video_id: str, number: int, first: int, stop: int, *, kv: bool = True
    ) -> tuple[VisualTokens, KVBlock | None]:
        return self._of(video_id).frames(video_id, number, first, stop, kv=kv)

    def thumbnails(
        self, video_id: str, number: int, frames: Sequence[int]
    ) -> tuple[bytes, ...] | None:
        return self._of(video_id).thumbnails(video_id, number, frames)

    def index(self, video_id: str, number: int, want: Set[str]) -> SegmentIndex:
        return self._of(video_id).index(video_id, number, want)

    def close(self) -> None:
        for store in self._stores:
            store.close()

    def _of(self, video_id: str) -> DiskStore:
        return self._stores[self.places.of(video_id)]
