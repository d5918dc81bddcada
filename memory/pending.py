"""Frames that are encoded and not yet on the disk: of segments under way to it, and of the segment that is still open.

Questions see them as the newest frames; nothing here survives a crash, and nothing that is acknowledged is here alone. Knows
no retriever and no files. A video's tail is a few segments at most, so it is bounded without a budget; it counts in none.

The open segment is encoded each time with all that it has so far, behind the same window as the whole one will be: attention
is causal, so its frames are those that will be sealed, up to rounding.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from encoders.schema import Segment
from memory.schema import Question, Run


@dataclass(frozen=True, slots=True)
class TailFrames:
    """Frames of a tail that a question may see, in time order."""

    runs: tuple[Run, ...]  # of one frame each
    cost: np.ndarray  # [T] int64 visual tokens of each

    def __len__(self) -> int:
        return len(self.runs)

    def newest(self, budget: int) -> "TailFrames":
        """The newest ones that fit into so many tokens."""
        fits = int((np.cumsum(self.cost[::-1]) <= budget).sum())
        return TailFrames(self.runs[len(self) - fits :], self.cost[len(self) - fits :])


class Tails:
    """Tails by video. Threads: one shows, many look."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._segments: dict[str, dict[int, Segment]] = {}  # video -> number -> segment, rising

    def show(self, segment: Segment) -> None:
        """Let questions see a segment that is not written yet; it replaces what was shown of this number."""
        with self._lock:
            self._segments.setdefault(segment.video_id, {})[segment.number] = segment

    def hide(self, video_id: str, until: int | None = None) -> None:
        """Forget the segments up to the number `until`, or all."""
        with self._lock:
            held = self._segments.get(video_id, {})
            for number in [n for n in held if until is None or n <= until]:
                del held[number]

    def of(self, video_id: str) -> list[Segment]:
        """What is shown of a video now, in time order."""
        with self._lock:
            return list(self._segments.get(video_id, {}).values())


def visible(
    segments: Sequence[Segment],
    question: Question,
    *,
    number: int,
    first: int,
    kv: bool,
) -> TailFrames:
    """The frames of these segments, from `number` on, that the question may see.
    first: ordinal of the first frame of segment `number`."""
    runs: list[Run] = []
    cost: list[int] = []
    for segment in (each for each in segments if each.number >= number):
        counts = segment.tokens.offsets.diff().tolist()
        for i, time in enumerate(segment.times.tolist()):
            if question.since <= time <= question.asked_at:
                block = segment.kv.frames(i, i + 1) if kv and segment.kv is not None else None
                runs.append(Run(segment.number, first + i, segment.tokens.frames(i, i + 1), block))
                cost.append(counts[i])
        first += len(segment)
    return TailFrames(tuple(runs), np.array(cost, np.int64))


def moved(runs: Sequence[Run], device: torch.device | None) -> tuple[Run, ...]:
    """The same runs where evidence is wanted; None: in RAM, where they are."""
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
