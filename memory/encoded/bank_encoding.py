"""Encoding on demand: `bank.encoding`. What questions read is encoded first, and kept.

Knows the store and a callable that encodes; no model, no film and no question.
"""

import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

import numpy as np

from encoders.errors import UserError
from encoders.schema import Segment
from memory.cache.tiers import FrameKey
from memory.storage.os_errors import as_user_errors
from memory.store import DiskStore, root_of

# (segments that are encoded, of so many): called before each one, and behind the last one
BeforeSegment = Callable[[int, int], None]
# (video id, numbers of its segments, rising, what is called before each): encodes and stores them
Encode = Callable[[str, Collection[int], BeforeSegment], None]
_COSTS = 100_000  # segments whose token counts stay in memory


class BankEncoding:
    """The segments that a bank still has to encode. Threads: any."""

    def __init__(
        self, store: DiskStore, writing: Callable[[], AbstractContextManager[None]]
    ) -> None:
        """writing: `with` it, this process is the only writer; UserError if another one is."""
        self._store, self.writing = store, writing
        self.encode: Encode | None = None  # set by who has a model and films
        self._watches = threading.local()
        # by (video id, number, seal of the file)
        self._costs: dict[tuple[str, int, str], np.ndarray] = {}

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
        done, left = 0, sum(map(len, wanted.values()))
        for video_id, numbers in wanted.items():
            if self.encode is None:
                raise UserError(
                    f"segment {numbers[0]} of video {video_id} in bank "
                    f"{root_of(self._store, video_id)} is still to be encoded, which is not done "
                    "here; ask about that bank alone first"
                )
            left -= len(numbers)
            done = self._encode(self.encode, video_id, numbers, done, left)
        return time.perf_counter() - began if wanted else 0.0

    def _encode(
        self, encode: Encode, video_id: str, numbers: Collection[int], before: int, left: int
    ) -> int:
        """Encode segments of one video, while the watchers of this thread look on. before, left:
        segments of other videos. Returns how many are encoded then."""
        encoded = before

        def tell(done: int, of: int) -> None:
            nonlocal encoded
            encoded = before + done
            for watch in self._watching:
                watch(encoded, before + of + left)

        encode(video_id, numbers, tell)
        return encoded

    @property
    def _watching(self) -> list[BeforeSegment]:
        """The watchers of this thread."""
        if not hasattr(self._watches, "own"):
            self._watches.own = []
        own: list[BeforeSegment] = self._watches.own
        return own

    @contextmanager
    def watched(self, watch: BeforeSegment) -> Iterator[None]:
        """In the block, `watch` is called before each segment that a question of this thread has
        encoded. What it raises ends the question; segments that are stored stay."""
        self._watching.append(watch)
        try:
            yield
        finally:
            self._watching.remove(watch)

    def costs(self, video_id: str, numbers: Iterable[int]) -> dict[int, np.ndarray]:
        """Number -> visual tokens of each frame [T], of those segments that are encoded, which a
        compressor left less than was planned."""
        costs = {}
        for number in numbers:
            row = self._store.encoded.row_of(video_id, number)
            if row is None:
                continue
            key = (video_id, number, row.seal)
            if key not in self._costs:
                if len(self._costs) >= _COSTS:
                    self._costs.clear()
                self._costs[key] = self._store.encoded.costs(row)
            costs[number] = self._costs[key]
        return costs

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
