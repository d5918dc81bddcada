"""The frames of one video in time order, in arrays that grow while questions read them.

Knows no tensors, no files and no retriever. Appending does not copy, so a segment costs the same
after a day as after a minute.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

Span = tuple[float, float]  # seconds of video time: start, and the end that is not part of it
# a frame whose time ends with a span, up to rounding of file times, lies before it
_EPS_S = 1e-3


def touches(span: Span, time: float, interval: float) -> bool:
    """Whether a frame, which is shown from `time` on for `interval` seconds, is in the span."""
    return time < span[1] and time + interval > span[0] + _EPS_S


class GrowingArray:
    """A one-dimensional array with spare room at its end. One thread at a time appends."""

    def __init__(self, values: np.ndarray) -> None:
        self._buffer = values
        self._count = len(values)

    def __len__(self) -> int:
        return self._count

    def extended(self, more: np.ndarray) -> np.ndarray:
        """All values, with `more` appended. Arrays that were returned earlier do not change."""
        count = self._count + len(more)
        if count > len(self._buffer):
            buffer = np.empty(max(2 * count, 64), self._buffer.dtype)
            buffer[: self._count] = self._buffer[: self._count]
            self._buffer = buffer
        self._buffer[self._count : count] = more
        self._count = count
        return self._buffer[:count]


@dataclass(frozen=True, slots=True, eq=False)
class Timeline:
    """The frames of one video that can be recalled. A new segment makes a new timeline, so a
    question keeps its own while the writer goes on."""

    times: np.ndarray  # [T] float64 seconds, rising
    tokens: np.ndarray  # [T] int64 visual tokens of each frame
    # [S + 1] int64: segment s of the stored ones holds the frames edges[s]..edges[s + 1] - 1
    edges: np.ndarray
    numbers: np.ndarray  # [S] int64: number of segment s; equal to s unless segments are missing
    revision: int = 0  # of the catalog at the time of reading
    # what the arrays are views of; shared with the timelines that this one extends
    _arrays: tuple[GrowingArray, ...] = ()
    # [S] uint64: the begin of each segment's checksum; 0 if it was not given
    seals: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint64))

    @classmethod
    def empty(cls) -> "Timeline":
        return cls(
            np.empty(0, np.float64),
            np.empty(0, np.int64),
            np.zeros(1, np.int64),
            np.empty(0, np.int64),
        )

    def extended(
        self,
        segments: Sequence[tuple[int, np.ndarray, np.ndarray]],
        revision: int = 0,
        checksums: Sequence[str] = (),
    ) -> "Timeline":
        """With further segments, each as (number, times, tokens). revision: of the catalog that
        they were read from. checksums: of the segments, as hex digits."""
        arrays = self._arrays
        # another timeline may have appended to the shared arrays already: then this one copies its
        # own values
        if not (
            arrays and len(arrays[0]) == len(self.times) and len(arrays[3]) == len(self.numbers)
        ):
            arrays = tuple(
                GrowingArray(np.asarray(each))
                for each in (self.times, self.tokens, self.edges, self.numbers, self.seals)
            )
        more = (
            np.concatenate([times for _, times, _ in segments]),
            np.concatenate([tokens for _, _, tokens in segments]),
            self.edges[-1] + np.cumsum([len(times) for _, times, _ in segments]),
            np.array([number for number, _, _ in segments], np.int64),
            np.array([int(text[:16], 16) for text in checksums] or [0] * len(segments), np.uint64),
        )
        times, tokens, edges, numbers, seals = (
            each.extended(part) for each, part in zip(arrays, more, strict=True)
        )
        return Timeline(times, tokens, edges, numbers, revision, arrays, seals)

    def priced(self, costs: Mapping[int, np.ndarray]) -> "Timeline":
        """With other token counts of some segments, each as number -> [frames]; itself where none
        differs, or has the frames of its segment. It cannot be extended."""
        tokens: np.ndarray | None = None
        for number, own in costs.items():
            segment = int(np.searchsorted(self.numbers, number))
            frames = slice(self.edges[segment], self.edges[segment + 1])
            before = self.tokens[frames]
            if len(own) == len(before) and not np.array_equal(own, before):
                tokens = self.tokens.copy() if tokens is None else tokens
                tokens[frames] = own
        return self if tokens is None else replace(self, tokens=tokens, _arrays=())

    @property
    def next_number(self) -> int:
        """The number of the next segment."""
        return int(self.numbers[-1]) + 1 if len(self.numbers) else 0

    def __len__(self) -> int:
        return len(self.times)

    def frame_of(self, start: float, end: float, visible: int) -> int | None:
        """The ordinal of the frame in the middle of a stretch of seconds, or of the last one before
        it. None if none of the first `visible` frames comes that early. Only the first minute of a
        long stretch counts."""
        middle = (start + min(end, start + 60.0)) / 2
        ordinal = int(np.searchsorted(self.times[:visible], middle, side="right")) - 1
        return ordinal if ordinal >= 0 else None

    def visible(self, asked_at: float) -> int:
        """How many frames a question at this second may see; a frame at exactly `asked_at`
        counts."""
        return int(np.searchsorted(self.times, asked_at, side="right"))

    def holders(self, stop: int) -> np.ndarray:
        """[stop] int64: for each of the first frames, the last one up to it with more than one
        token: the frame that it leans on, in a bank whose compressor carries whole frames on.
        Itself where there is none, or where segments are missing in between."""
        own = np.arange(stop)
        last = np.maximum.accumulate(np.where(self.tokens[:stop] > 1, own, -1))
        segment = np.searchsorted(self.edges, own, side="right") - 1
        missing = self.numbers[segment] - segment  # rises where segments are missing
        return np.where((last >= 0) & (missing[last] == missing), last, own)

    def with_holders(self, ranges: Sequence[range]) -> list[range]:
        """The ranges, and the frames outside that their first frames lean on. ranges: rising."""
        if not ranges:
            return []
        holders, every = self.holders(ranges[-1].stop), list[range]()
        for each in ranges:
            holder, done = int(holders[each.start]), every[-1].stop if every else 0
            if done <= holder < each.start:
                every.append(range(holder, holder + 1))
            if every and every[-1].stop == each.start:
                every[-1] = range(every[-1].start, each.stop)
            else:
                every.append(each)
        return every

    def ranges(self, spans: Sequence[Span], interval: float, asked_at: float) -> list[range]:
        """The ordinals of the frames that touch the spans and that a question at this second may
        see: rising, none twice, no range empty. spans: rising. interval: seconds between frames."""
        visible, ranges, done = self.visible(asked_at), list[range](), 0
        for start, end in spans:
            after = start - interval + _EPS_S
            first = max(int(np.searchsorted(self.times, after, side="right")), done)
            done = max(min(int(np.searchsorted(self.times, end, side="left")), visible), done)
            if first < done:
                ranges.append(range(first, done))
        return ranges
