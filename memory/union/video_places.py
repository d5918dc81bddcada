"""Which of several stores has a video. Knows ids; no segment and no line.

The first store that has a video gives all of it: frames, lines and findings. A video stays in its
place for as long as it is there, also where an earlier store gets it meanwhile.
"""

import threading
from collections.abc import Sequence

from memory.storage.catalog import CatalogChanges


class VideoPlaces:
    """The number of the store of each video. Threads: any."""

    def __init__(self, changes: Sequence[CatalogChanges]) -> None:
        self._changes = tuple(changes)
        self._lock = threading.Lock()
        self._states: list[tuple[int, ...] | None] = [None] * len(self._changes)
        self._ids: list[frozenset[str]] = [frozenset()] * len(self._changes)
        self._places: dict[str, int] = {}
        self._hidden: tuple[frozenset[str], ...] = tuple(self._ids)

    def of(self, video_id: str) -> int:
        """The place of a video; 0 where no store has it."""
        return self._synced().get(video_id, 0)

    def hidden(self, place: int) -> frozenset[str]:
        """Videos of a store that another one gives."""
        self._synced()
        return self._hidden[place]

    def _synced(self) -> dict[str, int]:
        with self._lock:
            changed = False
            for place, each in enumerate(self._changes):
                state = each.state()
                if state != self._states[place]:
                    ids = frozenset(each.video_ids())
                    changed |= ids != self._ids[place]
                    self._states[place], self._ids[place] = state, ids
            if changed:
                there = {each: at for each, at in self._places.items() if each in self._ids[at]}
                for place, ids in enumerate(self._ids):
                    there |= dict.fromkeys(ids - there.keys(), place)
                self._places = there
                self._hidden = tuple(
                    frozenset(each for each in ids if there[each] != place)
                    for place, ids in enumerate(self._ids)
                )
            return self._places
