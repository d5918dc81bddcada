"""Qwen2-VL, Qwen2.5-VL (arXiv 2409.12191, 2502.13923) and Qwen3-VL (arXiv 2511.21631) through transformers' own classes.

Knows what is special in these families: two sampled frames make one temporal patch, so one "frame" of the bank is a patch;
positions run on three axes (M-RoPE); and in Qwen3-VL each patch stands behind its time in text, and features of several
tower levels (DeepStack) belong to every visual token.

Qwen2-VL and Qwen2.5-VL have no time tags in text. Position is all they know of time, and recalled frames are laid side by
side: they can tell what came first, not when. Where text goes on after a video, transformers 5.23 and the authors differ
(encoders/models/positions.py, `VideoGrid`): text_after_video chooses.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from encoders.errors import UserError
from encoders.models.positions import TimedImages, VideoGrid
from encoders.models.video_llm import VideoLLM
from encoders.schema import Frames, VisualTokens

from transformers import (  # isort: skip  (after backbone declared the operators)
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLForConditionalGeneration,
    Qwen3VLForConditionalGeneration,
)


class _Qwen(VideoLLM):
    """What the three share: patches of two frames, and a frame size that the caller chooses once per bank."""

    model_class: Any
    family: str

    def __init__(
        self,
        path: str,
        *,
        dtype: str = "bfloat16",
        device: str = "cpu",
        attention: str = "sdpa",
        revision: str | None = None,
        width: int = 448,
        height: int = 252,
        batch: int = 8,
    ) -> None:
        """width, height: pixels of a frame, whatever the video's: multiples of the tower's patch times its merge.
        batch: temporal patches that go through the tower at once; bounds memory, changes nothing else."""
        super().__init__(
            path=path,
            model_class=self.model_class,
            family=self.family,
            dtype=dtype,
            device=device,
            attention=attention,
            revision=revision,
        )
        vision = self.config.vision_config
        self.temporal_patch = int(vision.temporal_patch_size)
        # pixels of a visual token's side
        self.unit = int(vision.patch_size * vision.spatial_merge_size)
        if width < self.unit or height < self.unit or width % self.unit or height % self.unit:
            fit = ", ".join(
                str(max(1, round(side / self.unit)) * self.unit) for side in (width, height)
            )
            raise UserError(
                f"backbone.width={width} and backbone.height={height} must be multiples of {self.unit} for this model; "
                f"nearest: {fit}."
            )
        self.width, self.height, self.batch = width, height, batch

    @property
    def frame_size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.width, self.height

    def grid(self) -> tuple[int, int]:
        """(rows, columns) of a temporal patch's visual tokens."""
        return self.height // self.unit, self.width // self.unit

    @property
    def tokens_per_frame(self) -> int:
        """Visual tokens of a temporal patch."""
        rows, columns = self.grid()
        return rows * columns

    def pixels(self, frames: np.ndarray) -> tuple[Tensor, Tensor]:
        """[2 * T, H, W, 3] uint8 -> the tower's flattened patches and grid [1, 3]."""
        out = self._processed(frames)
        return out["pixel_values_videos"].to(self.device, self.dtype), out["video_grid_thw"].to(
            self.device
        )

    @torch.inference_mode()
    def look(self, frames: Frames) -> VisualTokens:
        """Each temporal patch alone, in batches: equal to the whole clip, as the tower attends within a patch only. A last
        frame without a partner is taken twice, as the family's processor does.

        ValueError when the frames do not have `frame_size`.
        """
        self._check_size(frames)
        size = self.temporal_patch
        count = -(-len(frames) // size)
        pictures = np.concatenate(
            [frames.pixels, frames.pixels[-1:].repeat(count * size - len(frames), axis=0)]
        )
        seen: list[Tensor] = []
        for a in range(0, count, self.batch):
            out = self.model.get_video_features(
                *self.pixels(pictures[a * size : (a + self.batch) * size])
            )
            levels = [
                level[0] if isinstance(level, list | tuple) else level
                for level in self._levels(out)
            ]
            seen.append(torch.cat([torch.cat(list(out.pooler_output)), *levels], dim=1).cpu())
        rows, columns = self.grid()
        places = torch.stack(
            torch.meshgrid(*(torch.arange(n) for n in (count, rows, columns)), indexing="ij"),
            dim=-1,
        )
        times = torch.from_numpy(np.ascontiguousarray(frames.times, dtype=np.float64))
        return VisualTokens(
            tokens=torch.cat(seen),
            pos=places.reshape(-1, 3).to(torch.int32),
            offsets=torch.arange(count + 1) * (rows * columns),
            times=torch.stack([part[-1] for part in times.split(size)]),
            firsts=times[::size].clone(),
        )

    def _levels(self, out: Any) -> list[Any]:
        """Features of the tower's other levels, [N, D] each."""
        return []


class Qwen2VL(_Qwen):
    """`qwen2_vl` checkpoints: a frame is one position further in time, whatever the frame rate."""

    model_class = Qwen2VLForConditionalGeneration
    family = "qwen2_vl"

    def __init__(
        self,
        path: str,
        *,
        dtype: str = "bfloat16",
        device: str = "cpu",
        attention: str = "sdpa",
        revision: str | None = None,
        width: int = 448,
        height: int = 252,
        batch: int = 8,
        text_after_video: str = "transformers",
        fps: float = 1.0,
    ) -> None:
        """text_after_video: transformers or authors (encoders/models/positions.py). fps: sampled frames per second, the bank's."""
        super().__init__(
            path,
            dtype=dtype,
            device=device,
            attention=attention,
            revision=revision,
            width=width,
            height=height,
            batch=batch,
        )
        self.positions = VideoGrid(self._interval(fps), max(self.grid()), text_after_video)

    def _interval(self, fps: float) -> float:
        return 1.0

    def around(self, start: float, end: float) -> tuple[list[int], list[int]]:
        """Nothing: position is all that this family knows of time."""
        return [], []


class Qwen25VL(Qwen2VL):
    """`qwen2_5_vl` checkpoints: positions in time count `tokens_per_second`."""

    model_class = Qwen2_5_VLForConditionalGeneration
    family = "qwen2_5_vl"

    def _interval(self, fps: float) -> float:
        return float(self.config.vision_config.tokens_per_second * self.temporal_patch / fps)


class Qwen3VL(_Qwen):
    """`qwen3_vl` checkpoints: every temporal patch is an image of its own behind "<12.5 seconds>"."""

    model_class = Qwen3VLForConditionalGeneration
    family = "qwen3_vl"
    positions = TimedImages()

    def around(self, start: float, end: float) -> tuple[list[int], list[int]]:
        """The mean time of the patch's frames and the vision marks. (The chat template's own marks stay around the whole
        video, as the library's processor leaves them.)"""
        tag = f"<{(start + end) / 2:.1f} seconds>{self.processor.vision_start_token}"
        return self.ids(tag), self.ids(self.processor.vision_end_token)

    def _levels(self, out: Any) -> list[Any]:
        return list(out.deepstack_features)
