"""Frames that are encoded but not yet durable: segments on their way to the disk, and the segment
that is still open.

Questions see them as the newest frames. Nothing here survives a crash, and no acknowledged segment
is here alone. Knows no retriever and no files. A video has a few pending segments at most, so they
need no budget of their own and count in none.

The open segment is encoded again each time, with all frames so far, behind the window that the
whole segment will get. Attention is causal, so its frames equal those of the finished segment up to
rounding. An answer reads what the bank will store of them, quantized where it quantizes: it would
change otherwise once they are written (law 3).
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from encoders.schema import Segment
from memory.schema import Question, Run


@dataclass(frozen=True, slots=True)
class PendingRuns:
    """Pending frames that a question may see, in time order."""

    runs: tuple[Run, ...]  # one frame each
    cost: np.ndarray  # [T] int64 visual tokens of each frame

    def __len__(self) -> int:
        return len(self.runs)

    def newest(self, budget: int) -> "PendingRuns":
        """The newest frames that fit into `budget` tokens."""
        fits = int((np.cumsum(self.cost[::-1]) <= budget).sum())
        return PendingRuns(self.runs[len(self) - fits :], self.cost[len(self) - fits :])


class PendingFrames:
    """Pending segments by video. Threads: one shows, many look."""

    def __init__(self, stored: Callable[[Segment], Segment]) -> None:
        """stored: a segment as the bank will read it back."""
        self._lock = threading.Lock()
        self._stored = stored
        self._segments: dict[str, dict[int, Segment]] = {}  # video -> number -> segment, rising
        # video -> number -> that segment, and it as it will be read: made for the first question
        self._read: dict[str, dict[int, tuple[Segment, Segment]]] = {}

    def show(self, segment: Segment) -> None:
        """Let questions see a segment that is not written yet. It replaces an earlier one with the
        same number."""
        with self._lock:
            self._segments.setdefault(segment.video_id, {})[segment.number] = segment

    def hide(self, video_id: str, until: int | None = None) -> None:
        """Forget the segments up to the number `until`; None: all."""
        with self._lock:
            segments = self._segments.get(video_id, {})
            read = self._read.get(video_id, {})
            for number in [n for n in segments if until is None or n <= until]:
                del segments[number]
                read.pop(number, None)

    def of(self, video_id: str) -> list[Segment]:
        """The pending segments of a video, in time order."""
        with self._lock:
            return list(self._segments.get(video_id, {}).values())

    def as_read(self, video_id: str) -> list[Segment]:
        """The pending segments of a video as the bank will read them back."""
        with self._lock:
            segments = dict(self._segments.get(video_id, {}))
            before = dict(self._read.get(video_id, {}))
        made = {
            number: before[number]
            if number in before and before[number][0] is segment
            else (segment, self._stored(segment))
            for number, segment in segments.items()
        }
        with self._lock:
            still = self._segments.get(video_id, {})
            self._read[video_id] = {n: pair for n, pair in made.items() if n in still}
        return [read for _, read in made.values()]


def visible_runs(
    segments: Sequence[Segment],
    question: Question,
    *,
    number: int,
    first: int,
    interval: float,
    kv: bool,
) -> PendingRuns:
    """Frames of the segments from `number` on that the question may see.

    segments: of one video. first: ordinal of the first frame of segment `number`. interval: seconds
    between frames. kv: with keys and values.
    """
    runs: list[Run] = []
    cost: list[int] = []
    for segment in (each for each in segments if each.number >= number):
        counts, video_id = segment.tokens.offsets.diff().tolist(), segment.video_id
        for i, time in enumerate(segment.times.tolist()):
            if question.sees(video_id, time, interval):
                block = segment.kv.frames(i, i + 1) if kv and segment.kv is not None else None
                tokens = segment.tokens.frames(i, i + 1)
                runs.append(Run(video_id, segment.number, first + i, tokens, block))
                cost.append(counts[i])
        first += len(segment)
    return PendingRuns(tuple(runs), np.array(cost, np.int64))


def to_device(runs: Sequence[Run], device: torch.device | None) -> tuple[Run, ...]:
    """The runs with their tensors on `device`; None leaves them in RAM."""
    if device is None:
        return tuple(runs)
    return tuple(
        replace(
            run,
            tokens=replace(run.tokens, tokens=run.tokens.tokens.to(device)),
            kv=None
            if run.kv is None
            else replace(run.kv, keys=run.kv.keys.to(device), values=run.kv.values.to(device)),
        )
        for run in runs
    )
