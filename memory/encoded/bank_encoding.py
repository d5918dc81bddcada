"""Encoding on demand: `bank.encoding`. What questions read is encoded first, and kept.

Knows the store and a callable that encodes; no model, no film and no question.
"""

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractContextManager

from encoders.errors import UserError
from encoders.schema import Segment
from memory.cache.tiers import FrameKey
from memory.storage.os_errors import as_user_errors
from memory.store import DiskStore, root_of

# (video id, numbers of its segments, rising): encodes and stores them
Encode = Callable[[str, Collection[int]], None]


class BankEncoding:
    """The segments that a bank still has to encode. Threads: any."""

    def __init__(
        self, store: DiskStore, writing: Callable[[], AbstractContextManager[None]]
    ) -> None:
        """writing: `with` it, this process is the only writer; UserError if another one is."""
        self._store, self.writing = store, writing
        self.encode: Encode | None = None  # set by who has a model and films

    @property
    def is_on_demand(self) -> bool:
        """True for a bank whose segments come without visual tokens."""
        return self._store.encoded.settings is not None

    def missing(self, video_id: str, numbers: Iterable[int] | None = None) -> list[int]:
        """Those of a video's segments that are still to be encoded, ascending. numbers: None for
        all."""
        return self._store.encoded.missing(video_id, numbers)

    def encode_for(self, keys: Iterable[FrameKey]) -> float:
        """Encode the segments of these frames where that is still to be done; returns the seconds
        it took. UserError where nothing here can encode, and whatever encoding raises."""
        began, wanted = time.perf_counter(), self._missing_of(keys)
        for video_id, numbers in wanted.items():
            if self.encode is None:
                raise UserError(
                    f"segment {numbers[0]} of video {video_id} in bank "
                    f"{root_of(self._store, video_id)} is still to be encoded, which is not done "
                    "here; ask about that bank alone first"
                )
            self.encode(video_id, numbers)
        return time.perf_counter() - began if wanted else 0.0

    def encoded(self, keys: Iterable[FrameKey]) -> list[FrameKey]:
        """The frames without those of segments that are still to be encoded."""
        keys = list(keys)
        missing = self._missing_of(keys)
        return [key for key in keys if key.segment not in missing.get(key.video_id, ())]

    def nbytes(self, video_id: str) -> int:
        """Bytes of what questions had encoded of a video."""
        return self._store.encoded.nbytes(video_id)

    def write(self, segment: Segment) -> int:
        """Store what a stored segment is encoded to; on return it is durable. Returns the bytes of
        its file. UserError if the disk refuses, or if another process writes."""
        with self.writing(), as_user_errors(self._store.root):
            return self._store.encoded.put(segment, self._store.storage_format)

    def _missing_of(self, keys: Iterable[FrameKey]) -> Mapping[str, list[int]]:
        if not self.is_on_demand:
            return {}
        numbers: dict[str, set[int]] = {}
        for key in keys:
            numbers.setdefault(key.video_id, set()).add(key.segment)
        missing = {each: self.missing(each, own) for each, own in numbers.items()}
        return {each: own for each, own in missing.items() if own}
