"""Frames -> Segment: look, compress, prefill, embed. The write path on one page; knows no disk and no question.

What is seen of some frames depends on them alone, so it can be made ahead and elsewhere (`see`); what is remembered depends on
the window before them, so it is made in time order (`remember`).
"""

from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from encoders.models.backbone import Backbone
from encoders.prefill import key_means
from encoders.schema import Compressor, FrameEmbedder, Frames, Prefill, Segment, VisualTokens

# `with timer("look"): ...`; pipeline/runtime/stage_timer.py has one
Timer = Callable[[str], AbstractContextManager[None]]


@dataclass(frozen=True, slots=True)
class Seen:
    """What the models see of the frames of one segment."""

    frames: Frames
    tokens: VisualTokens  # compressed
    clip: "Future[Tensor]"  # [T, E]


@dataclass(frozen=True)
class Encoder:
    """Encodes the segments of one video in time order; `prefill` holds the window, so use one encoder per stream."""

    backbone: Backbone
    compressor: Compressor
    prefill: Prefill
    clip: FrameEmbedder
    interval: float  # seconds between sampled frames
    began: float | None = None  # Unix seconds of second 0 of the video, where somebody knows

    def encode(
        self,
        frames: Frames,
        number: int,
        timer: Timer,
        beside: Executor | None = None,
        *,
        still_open: bool = False,
    ) -> Segment:
        """The segment of these frames: `see`, then `remember`."""
        return self.remember(self.see(frames, timer, beside), number, timer, still_open=still_open)

    def see(self, frames: Frames, timer: Timer, beside: Executor | None = None) -> Seen:
        """Frames through tower, compressor and frame embedder. beside: embeds while the tower looks; None = before it."""
        rows = (
            _now(self._embed, frames, timer)
            if beside is None
            else beside.submit(self._embed, frames, timer)
        )
        with timer("look"):
            tokens = self.backbone.look(frames)
        with timer("compress"):
            tokens = self.compressor(tokens)
        return Seen(frames, tokens, rows)

    def remember(
        self, seen: Seen, number: int, timer: Timer, *, still_open: bool = False
    ) -> Segment:
        """The segment of what was seen; `number` is its place in the video. still_open: it is a segment's beginning, and will
        come again with more; what follows is encoded as if this had not been."""
        tokens, frames = seen.tokens, seen.frames
        with timer("prefill"):
            block = self.prefill(tokens, keep=not still_open)
        with timer("key_means"):
            means = None if block is None else key_means(block)
        with timer("wait"):
            rows = seen.clip.result()
        # A frame that repeats another is found as that one: with equal scores the earlier frame, the whole one, comes first
        shown = tokens.stands_for
        start = float(frames.times[0])
        return Segment(
            video_id=frames.video_id,
            number=number,
            start=start,
            end=float(frames.times[-1]) + self.interval,
            tokens=tokens,
            clip=rows[shown],
            kv=block,
            key_means=None if means is None else means[shown],
            wall=None if self.began is None else self.began + start,
        )

    def _embed(self, frames: Frames, timer: Timer) -> Tensor:
        """[T, E]."""
        with timer("clip"):
            return self._per_patch(self.clip.embed_frames(frames))

    def _per_patch(self, rows: Tensor) -> Tensor:
        """[sampled frames, E] -> [T, E]: of a temporal patch the mean direction of its frames."""
        size = self.backbone.temporal_patch
        if size == 1:
            return rows
        return torch.stack([normalize(part.mean(0), dim=0) for part in rows.split(size)])


def _now(call: Callable[..., Tensor], *args: object) -> "Future[Tensor]":
    """As an executor would, at once and here."""
    done: Future[Tensor] = Future()
    done.set_result(call(*args))
    return done
