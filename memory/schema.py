"""The records of recall and the role behind it: question -> hits -> evidence.

Knows segments only as records; knows no pixels, no prompts, no files. A frame is named by its
ordinal: 0, 1, 2, ... in time order within its video, over all segments.
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
    """A question about one video at one moment. It sees no frame after `asked_at`, and none before
    `since`."""

    text: str
    video_id: str
    asked_at: float = math.inf  # seconds of video time
    id: str = ""
    since: float = -math.inf  # seconds of video time
    keep: tuple[
        int, ...
    ] = ()  # ordinals that rank before the retriever's best, the most important first
    context: str = (
        ""  # text before the question in the prompt, such as earlier questions; not searched for
    )

    @property
    def prompt(self) -> str:
        """The text that a model reads."""
        return f"{self.context}\n\n{self.text}" if self.context else self.text


@dataclass(frozen=True, slots=True)
class Hits:
    """Frames ranked for a question, best first."""

    frames: Tensor  # [k] int64 ordinals, best first, no repeats
    scores: Tensor  # [k] float32, falling
    per_layer: Tensor | None = (
        None  # [L, k] int64: each layer's own ranking, from retrievers that have one
    )


@dataclass(frozen=True, slots=True)
class Run:
    """A frame, or neighboring frames of one segment, with all tensors that a reader may need."""

    segment: int  # number of the segment within its video
    first: int  # ordinal of the first frame
    tokens: VisualTokens
    kv: KVBlock | None

    @property
    def ordinals(self) -> range:
        return range(self.first, self.first + self.tokens.times.numel())


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Evidence:
    """The frames recalled for a question: runs in time order, no frame twice, nothing after the
    question's moment.

    While evidence is referenced, the bank keeps its frames in memory and counts them in its
    budgets.
    """

    question: Question
    runs: tuple[Run, ...]
    hits: Hits
    recent: (
        int  # how many frames are there because they are the newest, not because they ranked high
    )
    interval: float  # seconds between sampled frames: frame at time t stands for [t, t + interval)
    # [L, k] int64 rising ordinals: the frames that each layer reads; None: all layers read all
    # frames
    per_layer: Tensor | None = None
    seconds: dict[str, float] = field(default_factory=dict)  # "search" and "load"
    # "device", "ram", "disk" or "pending" -> frames
    came_from: dict[str, int] = field(default_factory=dict)
    lines: tuple[TextLine, ...] = ()  # text that is read with the frames, in time order

    @property
    def frame_count(self) -> int:
        return sum(run.tokens.times.numel() for run in self.runs)


@dataclass(frozen=True, slots=True)
class SegmentIndex:
    """What a retriever may need of a segment: a few rows per frame instead of all keys and
    values."""

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

    @property
    def has_clip(self) -> bool:
        """False where no embedder told frames apart: no rows, or a single number for all."""
        return self.clip is not None and self.clip.shape[1] > 1


class Retriever(Protocol):
    """Ranks the frames of one video for a question. Never names a frame with ordinal >= visible or
    < first.

    One thread adds while many search. Everything in a retriever's memory comes from the segments.
    It may be dropped and added again at any time, so nothing here has to be durable.
    """

    @property
    def reads(self) -> frozenset[str]:
        """The tensors of a SegmentIndex that `add` needs, out of {"clip", "key_means"}; the others
        may be None."""
        ...

    @property
    def nbytes(self) -> int:
        """RAM that the rows of all videos take."""
        ...

    def add(self, segment: SegmentIndex) -> None:
        """Add the next segment of its video. Called in time order; frames that were added before
        are skipped."""
        ...

    def search(self, question: Question, k: int, visible: int, first: int = 0) -> Hits:
        """The best k frames (or all), ordinal below `visible` and not below `first`. Of equal
        scores, the lower ordinal comes first. UserError if no frame of the video was added."""
        ...

    def frame_count(self, video_id: str) -> int:
        """How many frames of this video were added."""
        ...

    def load(self, folder: Path, video_id: str, timeline: Timeline) -> None:
        """Load what `save` left in `folder`, if it belongs to the first segments of this timeline;
        otherwise do nothing."""
        ...

    def save(self, folder: Path, video_id: str, timeline: Timeline) -> None:
        """Leave in `folder` what makes the next `load` fast; may do nothing. timeline: of the
        frames added. OSError."""
        ...

    def forget(self, video_id: str) -> None:
        """Free the memory of this video."""
        ...
