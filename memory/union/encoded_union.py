"""What questions had encoded in several banks, for reading.

A read of a segment goes to the store of that segment (memory/union/store_union.py).
"""

from collections.abc import Iterable, Sequence

import numpy as np

from memory.encoded.encoded_store import EncodedStore
from memory.storage.segments.side_rows import SideRow
from memory.union.video_places import VideoPlaces


class EncodedUnion(EncodedStore):
    """Which segments are still to be encoded."""

    def __init__(self, stores: Sequence[EncodedStore], places: VideoPlaces) -> None:
        self._stores, self._places = tuple(stores), places
        self.settings = None

    def use(self, settings: str | None) -> None:
        self.settings = settings  # banks of other settings are not read together
        for store in self._stores:
            store.use(settings)

    def row_of(self, video_id: str, number: int) -> SideRow | None:
        return self._of(video_id).row_of(video_id, number)

    def missing(self, video_id: str, numbers: Iterable[int] | None = None) -> list[int]:
        return self._of(video_id).missing(video_id, numbers)

    def costs(self, row: SideRow) -> np.ndarray:
        return self._of(row.video_id).costs(row)

    def nbytes(self, video_id: str) -> int:
        return self._of(video_id).nbytes(video_id)

    def _of(self, video_id: str) -> EncodedStore:
        return self._stores[self._places.of(video_id)]
