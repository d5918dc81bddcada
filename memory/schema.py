"""The records of recall and the role behind it: question -> hits -> evidence.

Knows segments only as records; knows no prompts, no files, and pixels only as what an embedder
takes. A frame is named by its video and its ordinal: 0, 1, 2, ... in time order within the video,
over all segments.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from encoders.compression.frame_pooling import pooled
from encoders.models.generation import Generation
from encoders.schema import Frames, KVBlock, Segment, VisualTokens
from encoders.text.lines import TextLine
from memory.resolution.schema import Resolution
from memory.timeline import Span, Timeline, touches

ANY_TIME: Span = (-math.inf, math.inf)
GREEDY = Generation()


class VideoSpan(NamedTuple):
    """A stretch of time of one video."""

    video_id: str
    start: float  # seconds
    end: float


class VideoTitle(NamedTuple):
    """What names a video in a prompt with several."""

    name: str  # in front of each of its lines
    began: str = ""  # when that was, where it is known

    @property
    def heading(self) -> str:
        """The text before the frames of the video."""
        return f"Video {', '.join(filter(None, self))}:\n"


class FrameName(NamedTuple):
    """A frame of a bank."""

    video_id: str
    ordinal: int


class Stretch(NamedTuple):
    """Neighboring frames of one video."""

    video_id: str
    first: int  # ordinal
    stop: int  # ordinal after the last frame

    def __len__(self) -> int:
        """How many frames."""
        return self.stop - self.first


@dataclass(frozen=True, slots=True, init=False)
class Question:
    """A question about one video or several, at one moment.

    `Question("Which code?", "film")` is about the whole of one video. Of each video the question
    sees no frame after its moment, and only frames that its spans touch.
    """

    text: str
    videos: tuple[str, ...]  # ids, none twice; evidence and prompt keep this order
    asked_at: float  # seconds of video time, of every video that `moments` does not name
    id: str
    # video id -> rising stretches of it, none overlapping; a video without an entry is not limited
    spans: Mapping[str, tuple[Span, ...]]
    # video id -> its own `asked_at`, where videos do not begin together: streams on one clock
    moments: Mapping[str, float]
    # frames that rank before the retriever's best, the most important first
    keep: tuple[FrameName, ...]
    # text before the question in the prompt, such as earlier questions; not searched for
    context: str
    query: str  # what is searched for in place of the text, such as the text without its time
    # whether it asks for the present state: of a value that changed, for the newest one
    newest: bool
    # a picture, or the frames of a clip, to search for beside the text
    picture: Frames | None = field(compare=False)
    generation: Generation  # how the answer is written
    # video id -> what the asker calls it, in place of the name of its file: an upload is stored
    # under another one
    names: Mapping[str, str]
    # how many visual tokens of each frame are read; None: as the bank is opened with
    resolution: Resolution | None

    def __init__(
        self,
        text: str,
        videos: str | Sequence[str],
        asked_at: float = math.inf,
        id: str = "",
        *,
        spans: Mapping[str, tuple[Span, ...]] | None = None,
        moments: Mapping[str, float] | None = None,
        keep: tuple[FrameName, ...] = (),
        context: str = "",
        query: str = "",
        newest: bool = False,
        picture: Frames | None = None,
        generation: Generation = GREEDY,
        names: Mapping[str, str] | None = None,
        resolution: Resolution | None = None,
    ) -> None:
        """videos: one id, or several. ValueError for no video, or for one twice."""
        ids = (videos,) if isinstance(videos, str) else tuple(videos)
        if not ids or len(set(ids)) < len(ids):
            raise ValueError(f"a question needs videos, each once, and got {list(ids)}")
        values = {
            "text": text,
            "videos": ids,
            "asked_at": asked_at,
            "id": id,
            "spans": spans or {},
            "moments": moments or {},
            "keep": keep,
            "context": context,
            "query": query,
            "newest": newest,
            "picture": picture,
            "generation": generation,
            "names": names or {},
            "resolution": resolution,
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def prompt(self) -> str:
        """The text that a model reads."""
        return f"{self.context}\n\n{self.text}" if self.context else self.text

    @property
    def search_text(self) -> str:
        """The text that is searched for."""
        return self.query or self.text

    @property
    def video_id(self) -> str:
        """The one video that the question is about. ValueError if there are several."""
        (video_id,) = self.videos
        return video_id

    def moment(self, video_id: str) -> float:
        """Seconds of video time after which the question sees nothing of a video."""
        return self.moments.get(video_id, self.asked_at)

    def spans_of(self, video_id: str) -> tuple[Span, ...]:
        """The stretches of a video that the question is about."""
        return self.spans.get(video_id, (ANY_TIME,))

    def sees(self, video_id: str, time: float, interval: float) -> bool:
        """Whether a frame, which is shown from `time` on for `interval` seconds, may be read."""
        spans = self.spans_of(video_id)
        return time <= self.moment(video_id) and any(
            touches(each, time, interval) for each in spans
        )

    def hull(self, video_id: str) -> Span:
        """From the first to the last second of these stretches; empty where there is none."""
        spans = self.spans_of(video_id)
        return (spans[0][0], spans[-1][1]) if spans else (0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Hits:
    """Frames ranked for a question, best first.

    A place is the number of a frame in the searched stretches, taken one after another. In a search
    of one whole video it is the frame's ordinal.
    """

    places: Tensor  # [k] int64, best first, no repeats
    scores: Tensor  # [k] float32, falling
    per_layer: Tensor | None = (
        None  # [L, k] int64 places: each layer's own ranking, from retrievers that have one
    )
    stretches: tuple[Stretch, ...] = ()  # that were searched
    # [L] float32, sum 1: how the layers divide what the budget holds; None: evenly
    layer_shares: Tensor | None = None
    # [L, Hq, k] int64 places: each query head's own ranking, from retrievers that have one
    per_head: Tensor | None = None
    head_frames: int | None = None  # with per_head: how many frames a head reads

    @property
    def frames(self) -> Tensor:
        """[k] int64: the ordinal of each frame in its video."""
        stretch, within = self._in_stretches()
        firsts = torch.tensor([each.first for each in self.stretches], dtype=torch.int64)
        return firsts[stretch] + within if len(stretch) else within

    @property
    def names(self) -> list[FrameName]:
        """The video and the ordinal of each frame."""
        stretch, _ = self._in_stretches()
        return [
            FrameName(self.stretches[number].video_id, ordinal)
            for number, ordinal in zip(stretch.tolist(), self.frames.tolist(), strict=True)
        ]

    def _in_stretches(self) -> tuple[Tensor, Tensor]:
        """The number of the stretch that each frame is in, and its number therein: both [k]."""
        stops = torch.tensor([len(each) for each in self.stretches], dtype=torch.int64).cumsum(0)
        stretch = torch.searchsorted(stops, self.places, right=True)
        begins = torch.cat([torch.zeros(1, dtype=torch.int64), stops])[stretch]
        return stretch, self.places - begins


@dataclass(frozen=True, slots=True)
class Run:
    """A frame, or neighboring frames of one segment, with all tensors that a reader may need."""

    video_id: str
    segment: int  # number of the segment within its video
    first: int  # ordinal of the first frame
    tokens: VisualTokens
    kv: KVBlock | None
    ratio: int = 1  # stored visual tokens for each one here

    @property
    def ordinals(self) -> range:
        return range(self.first, self.first + self.tokens.times.numel())

    def at_ratio(self, ratio: int) -> "Run":
        """The stored frames with a `ratio`-th of their visual tokens, and without keys and values,
        which have no mean."""
        if ratio == 1:
            return self
        return replace(self, tokens=pooled(self.tokens, ratio), kv=None, ratio=ratio)

    def single_frames(self) -> "list[Run]":
        """Each of its frames as a run of its own."""
        return [
            Run(
                self.video_id,
                self.segment,
                self.first + frame,
                self.tokens.frames(frame, frame + 1),
                None if self.kv is None else self.kv.frames(frame, frame + 1),
                self.ratio,
            )
            for frame in range(len(self.ordinals))
        ]


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Evidence:
    """The frames recalled for a question: video by video, each in time order, no frame twice,
    nothing after the question's moment.

    While evidence is referenced, the bank keeps its frames in memory and counts them in its
    budgets. A frame's number in the evidence, from 0, names it where one context is computed.
    """

    question: Question
    runs: tuple[Run, ...]
    hits: Hits
    recent: (
        int  # how many frames are there because they are the newest, not because they ranked high
    )
    interval: float  # seconds between sampled frames: frame at time t stands for [t, t + interval)
    # [L, k] int64 rising numbers of frames in this evidence: those that each layer reads; None: all
    # layers read all frames
    per_layer: Tensor | None = None
    # [L, Hq, k] int64 rising numbers of frames in this evidence: those that each query head reads;
    # None: all heads read all frames
    per_head: Tensor | None = None
    seconds: dict[str, float] = field(default_factory=dict)  # "search" and "load"
    # "device", "ram", "disk" or "pending" -> frames
    came_from: dict[str, int] = field(default_factory=dict)
    lines: tuple[TextLine, ...] = ()  # text that is read with the frames, in time order
    # video id -> what names that video in a prompt, where there are several videos
    titles: Mapping[str, VideoTitle] = field(default_factory=dict)

    @property
    def frame_count(self) -> int:
        return sum(run.tokens.times.numel() for run in self.runs)

    @property
    def names(self) -> tuple[FrameName, ...]:
        """The frames by their numbers in this evidence."""
        return tuple(FrameName(run.video_id, o) for run in self.runs for o in run.ordinals)

    @property
    def videos(self) -> dict[str, list[Run]]:
        """The runs of each video that has any, in order."""
        videos: dict[str, list[Run]] = {}
        for run in self.runs:
            videos.setdefault(run.video_id, []).append(run)
        return videos

    def of_best(self, frames: int) -> "Evidence":
        """The same with as many frames: those that rank first, then the newest. The memory of this
        one holds them."""
        newest = reversed(range(self.frame_count))
        chosen = set(list(dict.fromkeys([*self.ranking, *newest]))[:frames])
        single = [frame for run in self.runs for frame in run.single_frames()]
        return replace(self, runs=tuple(single[number] for number in sorted(chosen)))

    @property
    def ranking(self) -> list[int]:
        """The numbers of the frames that the search ranked, best first."""
        numbers = {name: number for number, name in enumerate(self.names)}
        return [numbers[name] for name in self.hits.names if name in numbers]


@dataclass(frozen=True, slots=True)
class FrameKeys:
    """The stored keys of the T frames of a segment, for retrievers that make rows of their own from
    them."""

    keys: Tensor  # [L, H, M, Dh] before rotary embedding
    offsets: Tensor  # [T + 1] int64: frame t with its time tag is offsets[t]:offsets[t + 1]
    # [T] int64: for each frame, the number of the frame that it repeats; its own if it repeats none
    representatives: Tensor

    def per_frame(self, make: Callable[[Tensor], Tensor]) -> Tensor:
        """[T, ...]: what `make` returns for the float32 keys [L, H, m, Dh] of each frame. A frame
        that repeats another one has what that one has."""
        distinct, places = self.representatives.unique(return_inverse=True)
        edges = self.offsets.tolist()
        rows = [
            make(self.keys[:, :, edges[t] : edges[t + 1]].float().cpu()) for t in distinct.tolist()
        ]
        return torch.stack(rows)[places]


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
    # unit rows of further frame embedders by their keys: [T, E] float16
    further: Mapping[str, Tensor] = field(default_factory=dict)
    keys: FrameKeys | None = None

    @classmethod
    def of(cls, segment: Segment, first: int) -> "SegmentIndex":
        return cls(
            segment.video_id,
            segment.number,
            first,
            segment.times,
            segment.clip,
            segment.key_means,
            segment.further,
            None
            if segment.kv is None
            else FrameKeys(segment.kv.keys, segment.kv.offsets, segment.tokens.representatives),
        )

    def __len__(self) -> int:
        return len(self.times)

    @property
    def has_clip(self) -> bool:
        """False where no embedder told frames apart: no rows, or a single number for all."""
        return self.clip is not None and self.clip.shape[1] > 1

    def embeddings(self, name: str) -> Tensor | None:
        """[T, E] unit rows of one frame embedder: "clip" for the bank's primary one, else a key.
        None where the segment has none."""
        if name == "clip":
            return self.clip if self.has_clip else None
        return self.further.get(name)


class Retriever(Protocol):
    """Ranks frames of videos for a question. Never names a frame outside the given stretches.

    One thread adds while many search. Everything in a retriever's memory comes from the segments.
    It may be dropped and added again at any time, so nothing here has to be durable.
    """

    @property
    def reads(self) -> frozenset[str]:
        """The tensors of a SegmentIndex that `add` needs: "clip", "key_means", "keys", and keys of
        further frame embedders; the others may be missing."""
        ...

    @property
    def nbytes(self) -> int:
        """RAM that the rows of all videos take."""
        ...

    def add(self, segment: SegmentIndex) -> None:
        """Add the next segment of its video. Called in time order; frames that were added before
        are skipped."""
        ...

    def search(self, question: Question, k: int, stretches: Sequence[Stretch]) -> Hits:
        """The best k frames (or all) of these stretches, ranked together. Of equal scores, the
        lower place comes first. UserError if no frame of one of the videos was added."""
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
