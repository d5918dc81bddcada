"""An array that grows at the end while others go on reading what they have of it: adding does not copy what is there.

Knows nothing of what the numbers mean.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


class Growing:
    """Room for numbers, [n]. One thread at a time adds."""

    def __init__(self, values: np.ndarray) -> None:
        self._held = values
        self._used = len(values)

    def follows(self, count: int) -> bool:
        """Whether what comes next comes after the first `count` numbers: nobody else has added behind them."""
        return self._used == count

    def with_more(self, more: np.ndarray) -> np.ndarray:
        """All numbers with these behind them. What was returned before shows what it showed."""
        count = self._used + len(more)
        if count > len(self._held):
            held = np.empty(max(2 * count, 64), self._held.dtype)
            held[: self._used] = self._held[: self._used]
            self._held = held
        self._held[self._used : count] = more
        self._used = count
        return self._held[:count]


@dataclass(frozen=True, slots=True, eq=False)
class Timeline:
    """The frames of one video that can be recalled. Replaced, never changed, when a segment comes: an asker keeps its
    own while the writer goes on."""

    times: np.ndarray  # [T] float64 seconds, rising
    tokens: np.ndarray  # [T] int64 visual tokens of each frame
    # [S + 1] int64: segment s of those that are there holds the frames edges[s]..edges[s + 1] - 1
    edges: np.ndarray
    numbers: np.ndarray  # [S] int64: number of segment s; s itself, unless some are missing
    revision: int = 0  # of the catalog that this was read from
    # where the four arrays lie, shared with the timelines that this one is a beginning of
    _room: tuple[Growing, ...] = ()

    @classmethod
    def empty(cls) -> "Timeline":
        return cls(
            np.empty(0, np.float64),
            np.empty(0, np.int64),
            np.zeros(1, np.int64),
            np.empty(0, np.int64),
        )

    def extended(
        self, segments: Sequence[tuple[int, np.ndarray, np.ndarray]], revision: int = 0
    ) -> "Timeline":
        """With further segments, each as (number, times, tokens), read at this revision. What is there is not copied, so that a
        segment costs the same after a day as after a minute."""
        room = self._room
        if not (room and room[0].follows(len(self.times)) and room[3].follows(len(self.numbers))):
            room = tuple(
                Growing(np.asarray(each))
                for each in (self.times, self.tokens, self.edges, self.numbers)
            )
        more = (
            np.concatenate([times for _, times, _ in segments]),
            np.concatenate([tokens for _, _, tokens in segments]),
            self.edges[-1] + np.cumsum([len(times) for _, times, _ in segments]),
            np.array([number for number, _, _ in segments], np.int64),
        )
        times, tokens, edges, numbers = (
            each.with_more(part) for each, part in zip(room, more, strict=True)
        )
        return Timeline(times, tokens, edges, numbers, revision, room)

    @property
    def next(self) -> int:
        """The number that the next segment will have."""
        return int(self.numbers[-1]) + 1 if len(self.numbers) else 0

    def __len__(self) -> int:
        return len(self.times)

    def frame_of(self, start: float, end: float, visible: int) -> int | None:
        """The frame in the middle of a stretch of seconds, among the first `visible`: else the last one before it; None where
        there is none."""
        at = (
            int(
                np.searchsorted(
                    self.times[:visible], (start + min(end, start + 60.0)) / 2, side="right"
                )
            )
            - 1
        )
        return at if at >= 0 else None

    def visible(self, asked_at: float) -> int:
        """How many frames were there at this second: a frame at exactly `asked_at` was."""
        return int(np.searchsorted(self.times, asked_at, side="right"))

    def first(self, since: float) -> int:
        """The first frame at this second or later; as many as there are, where none is."""
        return int(np.searchsorted(self.times, since, side="left"))
