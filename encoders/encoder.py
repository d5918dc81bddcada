"""Frames -> Segment: look, compress, prefill, embed. The write path on one page; knows no disk and no question."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from encoders.backbone import VideoLLM
from encoders.prefill import NoPrefill, WindowPrefill, key_means
from encoders.schema import Compressor, FrameEmbedder, Frames, Segment

Timer = Callable[[str], AbstractContextManager[None]]  # `with timer("look"): ...`; pipeline/clock.py has one


@dataclass(frozen=True)
class Encoder:
    """Encodes the segments of one video in time order; `prefill` holds the window, so use one encoder per stream."""

    backbone: VideoLLM
    compressor: Compressor
    prefill: WindowPrefill | NoPrefill
    clip: FrameEmbedder
    interval: float  # seconds between sampled frames
    began: float | None = None  # Unix seconds of second 0 of the video, where somebody knows

    def encode(self, frames: Frames, number: int, timer: Timer, *, still_open: bool = False) -> Segment:
        """The segment of these frames; `number` is its place in the video. still_open: they are its beginning, and it will
        come again with more; what follows is encoded as if this had not been."""
        with timer("look"):
            seen = self.backbone.look(frames)
        with timer("compress"):
            seen = self.compressor(seen)
        with timer("prefill"):
            block = self.prefill(seen, keep=not still_open)
        with timer("clip"):
            rows = self._per_patch(self.clip.embed_frames(frames))
        with timer("key_means"):
            means = None if block is None else key_means(block)
        # A frame that repeats another is found as that one: with equal scores the earlier frame, the whole one, comes first
        shown = seen.stands_for
        start = float(frames.times[0])
        return Segment(
            video_id=frames.video_id,
            number=number,
            start=start,
            end=float(frames.times[-1]) + self.interval,
            tokens=seen,
            clip=rows[shown],
            kv=block,
            key_means=None if means is None else means[shown],
            wall=None if self.began is None else self.began + start,
        )

    def _per_patch(self, rows: Tensor) -> Tensor:
        """[sampled frames, E] -> [T, E]: of a temporal patch the mean direction of its frames."""
        size = self.backbone.temporal_patch
        if size == 1:
            return rows
        return torch.stack([normalize(part.mean(0), dim=0) for part in rows.split(size)])
