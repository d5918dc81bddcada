"""The records of the write path and the roles that make them: pixels -> tokens -> key/value blocks
-> segment.

Knows no library beyond torch and numpy, no question, no storage. All records are frozen; parts
return new ones.
Letters: T frames, N visual tokens, M block tokens (frame text and visual tokens), D model width, L
layers, H KV heads, Dh head width, E embedding width. Some models merge sampled frames into temporal
patches; behind their tower, one patch counts as one frame.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, pairwise
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

# Matroska rounds times to milliseconds: 1/3 s is stored as 0.333 and must not count as too early
_EPS_S = 1e-3


def ticks(times: np.ndarray, fps: float) -> np.ndarray:
    """[T] float64: k of the last sampling point k / fps that each time (in seconds) has reached."""
    reached: np.ndarray = np.floor((times + _EPS_S) * fps)
    return reached


@dataclass(frozen=True, slots=True)
class Frames:
    """A run of decoded frames of one video, in time order."""

    video_id: str
    pixels: np.ndarray  # [T, height, width, 3] uint8 RGB
    times: np.ndarray  # [T] float64, seconds from the start of the video, strictly rising
    # [T] JPEGs that the bank stores with the frames (source.keep=); None: it stores none
    thumbnails: tuple[bytes, ...] | None = None
    # [T, height, width, 3] uint8 RGB: the same frames in more pixels, where a frame embedder asked
    # for them (encoders/detail.py)
    detail: np.ndarray | None = None

    def __post_init__(self) -> None:
        for pixels in (self.pixels, self.times if self.detail is None else self.detail):
            if len(pixels) != len(self.times):
                raise ValueError(f"{len(pixels)} frames with {len(self.times)} times")
        if self.thumbnails is not None and len(self.thumbnails) != len(self.times):
            raise ValueError(f"{len(self.times)} frames with {len(self.thumbnails)} thumbnails")

    def __len__(self) -> int:
        return len(self.times)

    def part(self, first: int, stop: int) -> "Frames":
        """Frames first..stop-1."""
        return Frames(
            self.video_id,
            self.pixels[first:stop],
            self.times[first:stop],
            None if self.thumbnails is None else self.thumbnails[first:stop],
            None if self.detail is None else self.detail[first:stop],
        )


def join_frames(parts: Sequence[Frames]) -> Frames:
    """One run of frames from several runs of the same video, in the given order. parts must not be
    empty.
    """
    return Frames(
        parts[0].video_id,
        np.concatenate([part.pixels for part in parts]),
        np.concatenate([part.times for part in parts]),
        _join_thumbnails(parts),
        _join_details(parts),
    )


def _join_thumbnails(parts: Sequence[Frames]) -> tuple[bytes, ...] | None:
    """None unless every part has its own."""
    own = [part.thumbnails for part in parts if part.thumbnails is not None]
    return tuple(chain.from_iterable(own)) if len(own) == len(parts) else None


def _join_details(parts: Sequence[Frames]) -> np.ndarray | None:
    """None unless every part has its own."""
    own = [part.detail for part in parts if part.detail is not None]
    return np.concatenate(own) if len(own) == len(parts) else None


@dataclass(frozen=True, slots=True)
class VisualTokens:
    """The input of the language model for T frames: one group of tokens per frame, of variable
    length.
    """

    # [N, D] in the language model's embedding space; with DeepStack, D covers all levels, one after
    # another
    tokens: Tensor
    pos: Tensor  # [N, 3] int32 (frame of this record, row, column); survives compression
    # [T + 1] int64: tokens of frame t are offsets[t]:offsets[t + 1]; every frame keeps at least one
    offsets: Tensor
    # [T] float64 seconds from the start of the video; for a temporal patch the time of its last
    # sampled frame, at which the patch is complete
    times: Tensor
    # [T] float64 seconds of the first sampled frame of each temporal patch; None = times
    firsts: Tensor | None = None
    # [T] bool: True for frames that repeat the last earlier frame marked False; None = no frame
    # does
    repeats: Tensor | None = None
    # [T] int32: the longer side of each frame's grid in tokens, before compression; 0, or None for
    # all = that of the model's own frame size
    sides: Tensor | None = None

    @property
    def is_planned(self) -> bool:
        """True where no tower has seen the frames yet: `tokens` and `pos` are empty, and `offsets`
        say how many tokens there will be at most."""
        return len(self.tokens) < int(self.offsets[-1])

    @property
    def starts(self) -> Tensor:
        """[T] float64: the second at which the time covered by each frame begins."""
        return self.times if self.firsts is None else self.firsts

    @property
    def representatives(self) -> Tensor:
        """[T] int64: for each frame, the number of the frame that it repeats; its own number if it
        repeats none.
        """
        own = torch.arange(len(self.times))
        return own if self.repeats is None else own.masked_fill(self.repeats, 0).cummax(0).values

    def keep(self, mask: Tensor) -> "VisualTokens":
        """Drop the tokens whose mask is False (mask: [N] bool). ValueError if a frame would lose
        all its tokens.
        """
        counts = torch.stack([mask[a:b].sum() for a, b in self.ranges()])
        if bool((counts == 0).any()):
            raise ValueError("a compressor must keep at least one token of every frame")
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
        return replace(self, tokens=self.tokens[mask], pos=self.pos[mask], offsets=offsets)

    def ranges(self) -> list[tuple[int, int]]:
        """The token range of each frame."""
        edges: list[int] = self.offsets.tolist()
        return list(pairwise(edges))

    def frames(self, first: int, stop: int) -> "VisualTokens":
        """Frames first..stop-1 as a record of their own, with frame numbers from 0."""
        a, b = int(self.offsets[first]), int(self.offsets[stop])
        pos = self.pos[a:b] - torch.tensor([first, 0, 0], dtype=self.pos.dtype)
        firsts, repeats, sides = (
            None if x is None else x[first:stop] for x in (self.firsts, self.repeats, self.sides)
        )
        return VisualTokens(
            self.tokens[a:b],
            pos,
            self.offsets[first : stop + 1] - a,
            self.times[first:stop],
            firsts,
            repeats,
            sides,
        )


def join_tokens(parts: Sequence[VisualTokens]) -> VisualTokens:
    """One record from several, in the given order. parts must not be empty."""
    pos, offsets, frames, base = [], [parts[0].offsets[:1]], 0, 0
    for part in parts:
        pos.append(part.pos + torch.tensor([frames, 0, 0], dtype=part.pos.dtype))
        offsets.append(part.offsets[1:] + base)
        frames, base = frames + len(part.times), base + int(part.offsets[-1])
    firsts = None if parts[0].firsts is None else torch.cat([part.starts for part in parts])
    tokens, times = (
        torch.cat([getattr(part, name) for part in parts]) for name in ("tokens", "times")
    )
    repeats = None
    if any(part.repeats is not None for part in parts):
        none = (torch.zeros(len(part.times), dtype=torch.bool) for part in parts)
        repeats = torch.cat(
            [
                other if part.repeats is None else part.repeats
                for part, other in zip(parts, none, strict=True)
            ]
        )
    sides = None
    if any(part.sides is not None for part in parts):
        own = (torch.zeros(len(part.times), dtype=torch.int32) for part in parts)
        sides = torch.cat(
            [
                other if part.sides is None else part.sides
                for part, other in zip(parts, own, strict=True)
            ]
        )
    return VisualTokens(tokens, torch.cat(pos), torch.cat(offsets), times, firsts, repeats, sides)


@dataclass(frozen=True, slots=True)
class FrameEmbeds:
    """T frames as the language model reads them: visual tokens with the text around them, such as
    time tags.
    """

    embeds: Tensor  # [M, D]
    offsets: Tensor  # [T + 1] int64: frame t with its text is offsets[t]:offsets[t + 1]
    visual: Tensor  # [M] bool: visual tokens; the others are text
    # [M, 3] int32 (time, row, column) relative to the frame; None for models with one axis
    pos: Tensor | None = None
    # [N, D] each: added to the visual tokens behind the first layers (arXiv 2406.04334)
    deepstack: tuple[Tensor, ...] = ()

    def __len__(self) -> int:
        return len(self.embeds)

    def frames(self, first: int, stop: int) -> "FrameEmbeds":
        """Frames first..stop-1, with the text around them, as a record of their own."""
        a, b = int(self.offsets[first]), int(self.offsets[stop])
        c, d = (int(self.visual[:end].sum()) for end in (a, b))
        return FrameEmbeds(
            self.embeds[a:b],
            self.offsets[first : stop + 1] - a,
            self.visual[a:b],
            None if self.pos is None else self.pos[a:b],
            tuple(level[c:d] for level in self.deepstack),
        )


@dataclass(frozen=True, slots=True)
class KVBlock:
    """Keys and values of T frames. Keys are stored before rotary embedding, so a block fits any
    position.
    """

    keys: Tensor  # [L, H, M, Dh] before rotary embedding
    values: Tensor  # [L, H, M, Dh]
    offsets: Tensor  # [T + 1] int64: frame t with its time tag is offsets[t]:offsets[t + 1]
    # [M, 3] int32 (time, row, column) relative to the frame; None for models with one axis
    pos: Tensor | None = None

    def frames(self, first: int, stop: int) -> "KVBlock":
        """Frames first..stop-1 as a block of their own."""
        a, b = int(self.offsets[first]), int(self.offsets[stop])
        pos = None if self.pos is None else self.pos[a:b]
        return KVBlock(
            self.keys[:, :, a:b], self.values[:, :, a:b], self.offsets[first : stop + 1] - a, pos
        )

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values."""
        return self.keys.nbytes + self.values.nbytes


@dataclass(frozen=True, slots=True, eq=False)
class CarriedFrame:
    """The last whole frame of a stream, as a compressor carries it from segment to segment."""

    direction: Tensor  # [D] float16: the mean of its tokens, of length 1
    segments: int  # how many segments before the next one it was; 1: in the one before


@dataclass(frozen=True, slots=True)
class Segment:
    """The unit of storage: some seconds of one video, or one scene."""

    video_id: str
    number: int  # 0, 1, 2, ... in time order within its video
    start: float  # seconds of video time, inclusive
    end: float  # seconds of video time, exclusive
    tokens: VisualTokens
    clip: Tensor  # [T, E] float32 unit rows, one per frame
    kv: KVBlock | None  # None if the bank keeps tokens only
    # [T, L, H * Dh] float32: mean key of each frame before rotary embedding
    key_means: Tensor | None
    # Unix seconds of `start`, if known
    wall: float | None = None
    # [T] JPEG of each frame, for when the film is gone; None: none are stored
    thumbnails: tuple[bytes, ...] | None = None
    # unit rows of further frame embedders, by their keys (`embedder_key`): [T, E] float16, one per
    # frame
    further: Mapping[str, Tensor] = field(default_factory=dict)
    # what the compressor carries on to the next segment; None: nothing
    carried: CarriedFrame | None = None

    @property
    def times(self) -> Tensor:
        """[T] float64 seconds of the frames."""
        return self.tokens.times

    @property
    def distinct_thumbnails(self) -> tuple[bytes, ...]:
        """The thumbnails as they are stored: one that equals the one before it, as of a still
        picture, is empty.
        """
        own = self.thumbnails or ()
        repeats = (False, *(after == before for before, after in pairwise(own)))
        return tuple(
            b"" if is_repeat else each for is_repeat, each in zip(repeats, own, strict=False)
        )

    def __len__(self) -> int:
        return len(self.tokens.times)


_PART = re.compile(r"([0-9a-f]+)(?:-from-([0-9.e+-]+?))?(?:-to-([0-9.e+-]+))?")


@dataclass(frozen=True, slots=True)
class VideoPart:
    """The part of a video that a bank holds as one video. `str()` gives its id in the bank; `parse`
    is the inverse.

    The id of a whole file is its fingerprint. The id of a part adds its limits, so the two never
    mix.
    """

    id: str  # fingerprint of the file, or the name of a stream
    start: float = 0.0  # seconds of video time, inclusive
    end: float | None = None  # seconds, exclusive; None = the file's end

    def __str__(self) -> str:
        limits = (("from", self.start or None), ("to", self.end))
        return self.id + "".join(
            f"-{word}-{repr(float(seconds)).removesuffix('.0')}"
            for word, seconds in limits
            if seconds is not None
        )

    @classmethod
    def parse(cls, video_id: str) -> "VideoPart":
        """The part that an id names. An id of any other form names a whole video."""
        match = _PART.fullmatch(video_id)
        if match is None:
            return cls(video_id)
        name, start, end = match.groups()
        return cls(name, float(start or 0), None if end is None else float(end))


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """Facts about a video. Some are final only after the video was read."""

    video_id: str  # fingerprint of the content, not of the name
    path: str
    duration: float  # seconds; what the container says
    # rule of sampling and decoder, as "shown:pyav", "keyframes:pyav", or "shown:decord+pyav" where
    # PyAV took over in the middle; banks of before, which sampled the first picture at or after a
    # point, have no rule
    decoder: str
    broke_at: float | None = None  # seconds: the file cannot be decoded from here on
    note: str = ""  # why PyAV was used, or what is wrong with the file


class FrameSource(Protocol):
    """Frames of one video, sampled by timestamp, in batches, in time order."""

    @property
    def info(self) -> VideoInfo:
        """The facts so far; `broke_at` and `decoder` are final once iteration has ended."""
        ...

    def frames(self, start: float = 0.0) -> Iterator[Frames]:
        """Batches of sampled frames from `start` seconds on. A second call yields the same frames
        at the same times.
        """
        ...


@runtime_checkable
class ResumableSource(Protocol):
    """A source that knows how an earlier pass sampled and decoded, and can go on that way."""

    def resume(self, before: VideoInfo) -> None:
        """Sample and decode as the pass that made this record did. UserError if that is not
        possible any more.
        """
        ...


class LiveSource(FrameSource, Protocol):
    """Frames that arrive while they are encoded: from a camera, or from a file that is played."""

    # True if `frames(start)` can deliver past frames again, as for a file; False if it continues
    # with the present
    is_replayable: bool

    @property
    def is_idle(self) -> bool:
        """True if every frame that has arrived was delivered."""
        ...

    @property
    def now(self) -> float:
        """The current second of video time. Every frame that has arrived was sampled at or before
        it.
        """
        ...

    def start_clock(self, start: float) -> float | None:
        """Set the video time of this moment to `start`; call it before `frames(start)`. Returns
        Unix seconds of second 0, or None if they are unknown.
        """
        ...

    def close(self) -> None:
        """End the stream soon: `frames` ends, or raises `SourceClosed` if the source is replayable
        and can continue later.
        """
        ...


class Segmenter(Protocol):
    """Cuts a stream of frames into the frames of each segment. Causal: a cut depends on later
    frames only up to the stated lag. The frames of all segments, joined, are the frames of the
    stream.
    """

    @property
    def look_back(self) -> int:
        """Number of frames before a segment's start that decide where it ends. A resumed pass must
        begin with them.
        """
        ...

    def segments(self, batches: Iterator[Frames], after: float = 0.0) -> Iterator[Frames]:
        """The frames of each segment that starts at `after` seconds or later. `after` is 0 or the
        end of a segment of an earlier pass; the batches begin `look_back` frames before it, or at
        the beginning.
        """
        ...


class Compressor(Protocol):
    """Fewer visual tokens. Input and output have the same type, so compressors chain."""

    def __call__(self, visual: VisualTokens) -> VisualTokens: ...


@runtime_checkable
class StatefulCompressor(Compressor, Protocol):
    """A compressor of a stream, which knows what the segments before have shown. Called for one
    segment alone, it starts afresh."""

    def carry(
        self, visual: VisualTokens, before: CarriedFrame | None
    ) -> tuple[VisualTokens, CarriedFrame]:
        """The next segment, and what its follower is compressed behind. before: what the segment
        before gave; None starts afresh."""
        ...


class Prefill(Protocol):
    """Visual tokens -> keys and values. Holds one stream's window; use one object per video."""

    # True if `__call__` returns keys and values; False if it returns None
    keeps_kv: bool
    window_frames: int  # number of earlier frames that a frame attends to

    def restore(self, blocks: Iterable[KVBlock]) -> None:
        """Set the window from stored blocks in time order, as if they had just been encoded."""
        ...

    def __call__(self, visual: VisualTokens, keep: bool = True) -> KVBlock | None:
        """Encode the next segment. keep=False leaves the window unchanged, so the segment can come
        again with more frames.
        """
        ...


class FrameEmbedder(Protocol):
    """Frames and texts in one embedding space; rows have unit length."""

    def embed_frames(self, frames: Frames) -> Tensor:  # [T, E] float32
        ...

    def embed_text(self, text: str) -> Tensor:  # [E] float32
        ...


class DualEncoder(FrameEmbedder, Protocol):
    """A frame embedder that takes several texts in one pass and identifies its weights."""

    def embed_texts(self, texts: Sequence[str]) -> Tensor:  # [B, E] float32
        ...

    def fingerprint(self) -> str:
        """16 hex digits over the model and its weights, plus a suffix for the dtype."""
        ...


def embedder_key(name: str, embedder: DualEncoder) -> str:
    """The key of a further frame embedder in records and banks: "conse-0123456789abcdef". name: of
    its option of conf/clip.
    """
    return f"{name}-{embedder.fingerprint()}"


def embedder_name(key: str) -> str:
    """The name in a key of `embedder_key`."""
    return key.partition("-")[0]
