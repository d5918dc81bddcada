"""Frames -> Segment: vision tower, compressor, prefill, frame embedder. The write path on one page;
knows no disk and no question.

`extract_features` knows no window, so it can run ahead in another thread.
`to_segment` depends on the window of earlier frames, so it runs in time order.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from encoders.models.backbone import VideoModel
from encoders.prefill import key_means
from encoders.schema import (
    CarriedFrame,
    Compressor,
    FrameEmbedder,
    Frames,
    Prefill,
    Segment,
    StatefulCompressor,
    VisualTokens,
    embedder_name,
)

T = TypeVar("T")

# `with timer("look"): ...`; pipeline/runtime/stage_timer.py implements it
Timer = Callable[[str], AbstractContextManager[None]]


@dataclass(frozen=True, slots=True)
class FrameFeatures:
    """Tokens and embeddings of the frames of one segment; they depend on these frames and on what
    the compressor carries, not on the window."""

    frames: Frames
    tokens: VisualTokens  # compressed
    # [T, E] float32 unit rows: "clip", and those of further frame embedders by their keys
    embeddings: "Future[Mapping[str, Tensor]]"
    carried: CarriedFrame | None = None  # on to the next segment


@dataclass
class Carry:
    """What the compressor of one stream carries from the last segment to the next one."""

    frame: CarriedFrame | None = None


@dataclass(frozen=True)
class Encoder:
    """Encodes the segments of one video in time order. `prefill` holds the window, so use one
    encoder per stream.
    """

    backbone: VideoModel
    compressor: Compressor
    prefill: Prefill
    clip: FrameEmbedder
    interval: float  # seconds between sampled frames
    began: float | None = None  # Unix seconds of second 0 of the video, if known
    further: Mapping[str, FrameEmbedder] = field(default_factory=dict)  # by their keys
    carry: Carry = field(default_factory=Carry)

    def encode(
        self,
        frames: Frames,
        number: int,
        timer: Timer,
        executor: Executor | None = None,
        *,
        still_open: bool = False,
    ) -> Segment:
        """The segment of these frames: `extract_features`, then `to_segment`."""
        features = self.extract_features(frames, timer, executor, still_open=still_open)
        return self.to_segment(features, number, timer, still_open=still_open)

    def extract_features(
        self,
        frames: Frames,
        timer: Timer,
        executor: Executor | None = None,
        *,
        still_open: bool = False,
    ) -> FrameFeatures:
        """Run tower, compressor and frame embedder, segment by segment in time order. executor:
        runs the embedder in parallel with the tower; None = before it. still_open: as of
        `to_segment`.
        """
        embeddings = (
            _complete(self._embed, frames, timer)
            if executor is None
            else executor.submit(self._embed, frames, timer)
        )
        with timer("look"):
            tokens = self.backbone.encode_frames(frames)
        carried = None
        with timer("compress"):
            if isinstance(self.compressor, StatefulCompressor):
                tokens, carried = self.compressor.carry(tokens, self.carry.frame)
            else:
                tokens = self.compressor(tokens)
        if not still_open:
            self.carry.frame = carried
        return FrameFeatures(frames, tokens, embeddings, carried)

    def to_segment(
        self, features: FrameFeatures, number: int, timer: Timer, *, still_open: bool = False
    ) -> Segment:
        """The segment with this number in its video. still_open: these frames are only the
        beginning of the segment and come again with more, so the prefill window stays unchanged.
        """
        tokens, frames = features.tokens, features.frames
        with timer("prefill"):
            block = self.prefill(tokens, keep=not still_open)
        with timer("key_means"):
            means = None if block is None else key_means(block)
        with timer("wait"):
            rows = dict(features.embeddings.result())
        # A repeated frame gets the rows of the frame that it repeats. With equal scores the earlier
        # frame, which keeps all its tokens, ranks first.
        sources = tokens.representatives
        start = float(frames.times[0])
        return Segment(
            video_id=frames.video_id,
            number=number,
            start=start,
            end=float(frames.times[-1]) + self.interval,
            tokens=tokens,
            clip=rows.pop("clip")[sources],
            kv=block,
            key_means=None if means is None else means[sources],
            wall=None if self.began is None else self.began + start,
            thumbnails=self._thumbnails(frames),
            further={key: stored_rows(each, sources) for key, each in rows.items()},
            carried=features.carried,
        )

    def _embed(self, frames: Frames, timer: Timer) -> Mapping[str, Tensor]:
        """[T, E] float32 by each frame embedder."""
        size, embeddings = self.backbone.temporal_patch, dict[str, Tensor]()
        with timer("clip"):
            embeddings["clip"] = per_patch(self.clip.embed_frames(frames), size)
        for key, embedder in self.further.items():
            with timer(embedder_name(key)):
                embeddings[key] = per_patch(embedder.embed_frames(frames), size)
        return embeddings

    def _thumbnails(self, frames: Frames) -> tuple[bytes, ...] | None:
        """One for each frame; for a temporal patch, that of its last sampled frame, whose time is
        the patch's.
        """
        if frames.thumbnails is None:
            return None
        size, last = self.backbone.temporal_patch, len(frames) - 1
        return tuple(
            frames.thumbnails[min(first + size - 1, last)] for first in range(0, last + 1, size)
        )


def per_patch(rows: Tensor, size: int) -> Tensor:
    """[sampled frames, E] -> [T, E]: for a temporal patch of so many sampled frames, the mean
    direction of its frames."""
    if size == 1:
        return rows
    return torch.stack([normalize(part.mean(0), dim=0) for part in rows.split(size)])


def stored_rows(rows: Tensor, representatives: Tensor) -> Tensor:
    """[T, E] float16: rows of a further frame embedder as they are stored; a repeated frame has
    those of the frame that it repeats. representatives: [T] of the frames' tokens."""
    return rows[representatives].to("cpu", torch.float16)


def _complete(call: Callable[..., T], *args: object) -> "Future[T]":
    """Run the call here and now, and return its result as an executor would."""
    done: Future[T] = Future()
    done.set_result(call(*args))
    return done
