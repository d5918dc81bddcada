"""The records of recall and the roles behind it: question -> hits -> evidence.

Knows segments only as records; knows no pixels, no prompts, no files. A frame is named by its ordinal: 0, 1, 2, ... in
time order within its video, over all segments.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from torch import Tensor

from encoders.schema import KVBlock, Segment, VisualTokens
from encoders.text.lines import TextLine
from memory.timeline import Timeline


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, of which video, and at which moment: nothing after `asked_at` may be seen, nor before `since`."""

    text: str
    video_id: str
    asked_at: float = math.inf  # seconds of video time
    id: str = ""
    since: float = -math.inf  # seconds of video time
    # ordinals of frames that come before the retriever's best, the most wanted first
    keep: tuple[int, ...] = ()
    # what a model is told before the question, such as earlier questions; nothing is searched for it
    told: str = ""

    @property
    def prompt(self) -> str:
        """What a model reads."""
        return f"{self.told}\n\n{self.text}" if self.told else self.text


@dataclass(frozen=True, slots=True)
class Hits:
    """Frames ranked for a question, best first."""

    frames: Tensor  # [k] int64 ordinals, best first, no repeats
    scores: Tensor  # [k] float32, falling
    per_layer: Tensor | None = None  # [L, k] int64: when each layer ranked its own frames


@dataclass(frozen=True, slots=True)
class Run:
    """A frame, or neighbouring frames of one segment, with all that a reader may need of them."""

    segment: int  # number of the segment within its video
    first: int  # ordinal of the first frame
    tokens: VisualTokens
    kv: KVBlock | None

    @property
    def ordinals(self) -> range:
        return range(self.first, self.first + self.tokens.times.numel())


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Evidence:
    """What was recalled for a question: runs in time order, no frame twice, nothing after the question's moment.

    The bank keeps the frames of evidence that somebody holds in memory, and counts them in its budgets.
    """

    question: Question
    runs: tuple[Run, ...]
    hits: Hits
    # how many of the frames are there because they are the newest, not because they were ranked
    recent: int
    interval: float  # seconds between sampled frames: frame at time t stands for [t, t + interval)
    # [L, k] int64 rising ordinals: frames that each layer reads; None = all read all
    per_layer: Tensor | None = None
    seconds: dict[str, float] = field(default_factory=dict)  # search, load
    # frames from "device", "ram" and "disk"
    came_from: dict[str, int] = field(default_factory=dict)
    # words of the video that are read with the frames, in time order
    lines: tuple[TextLine, ...] = ()

    @property
    def frame_count(self) -> int:
        return sum(run.tokens.times.numel() for run in self.runs)


@dataclass(frozen=True, slots=True)
class SegmentIndex:
    """What a retriever may need of a segment: a few rows per frame instead of all keys and values."""

    video_id: str
    number: int
    first: int  # ordinal of the first frame
    times: Tensor  # [T] float64 seconds
    clip: Tensor | None = None  # [T, E] float32 unit rows
    key_means: Tensor | None = None  # [T, L, H * Dh] float32

    @classmethod
    def of(cls, segment: Segment, first: int) -> "SegmentIndex":
        return cls(
            segment.video_id, segment.number, first, segment.times, segment.clip, segment.key_means
        )

    def __len__(self) -> int:
        return len(self.times)


class Retriever(Protocol):
    """Ranks the frames of one video for a question. Never names a frame with ordinal >= visible or < first.

    One thread adds while many search. What a retriever holds in memory comes from the segments and can be dropped and
    taken in again at any time, so nothing here has to be durable.
    """

    @property
    def reads(self) -> frozenset[str]:
        """Which tensors of a SegmentIndex `add` looks at, out of {"clip", "key_means"}; the others may be None."""
        ...

    @property
    def nbytes(self) -> int:
        """RAM that the rows of all videos take."""
        ...

    def add(self, segment: SegmentIndex) -> None:
        """Take in the next segment of its video. Called in time order; frames taken in before are passed over."""
        ...

    def search(self, question: Question, k: int, visible: int, first: int = 0) -> Hits:
        """The best k frames (or all), ordinal below `visible` and not below `first`; equal scores give the lower ordinal
        first. UserError when the video was never taken in."""
        ...

    def known(self, video_id: str) -> int:
        """How many frames of this video were taken in (0 for a video never seen)."""
        ...

    def load(self, folder: Path, video_id: str, timeline: Timeline) -> None:
        """Take back what `save` left in `folder` of the first segments of this timeline, if that is what it holds; otherwise
        do nothing."""
        ...

    def save(self, folder: Path, video_id: str, timeline: Timeline) -> None:
        """Leave in `folder` what makes the next `load` fast; may do nothing. timeline: of the frames taken in. OSError."""
        ...

    def forget(self, video_id: str) -> None:
        """Let go of this video's memory."""
        ...
