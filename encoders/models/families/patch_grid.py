"""The common part of families whose tower takes a grid of patches of any shape: frames keep the
shape of their film.

Knows towers whose tokens are merged squares of patches, and temporal patches of several frames.
Knows no prompt and no positions.
"""

import math
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor

from encoders.errors import UserError
from encoders.models.video_llm import LoadOptions, VideoLLM
from encoders.schema import Frames, VisualTokens

# share of the tokens of width x height that a film's own shape may leave unused
_SPARE = 0.1


class PatchGridOptions(LoadOptions, total=False):
    """The options of all these families."""

    width: int
    height: int
    squeeze: bool


def grid_for(ratio: float, tokens: int) -> tuple[int, int]:
    """(rows, columns) of at most `tokens` tokens, and at least nine tenths of them, nearest to the
    shape of a film of this width over height. Of equally near ones, the one with more tokens.
    """
    grids = [
        (rows, columns)
        for rows in range(1, tokens + 1)
        for columns in range(math.ceil((1 - _SPARE) * tokens / rows), tokens // rows + 1)
    ]
    return min(grids, key=lambda grid: (abs(math.log(grid[1] / grid[0] / ratio)), -math.prod(grid)))


class PatchGridVLM(VideoLLM):
    """A family whose frames may have any shape, as its own processor keeps that of the film."""

    def __init__(
        self,
        path: str,
        *,
        width: int = 448,
        height: int = 252,
        squeeze: bool = False,
        **options: Unpack[LoadOptions],
    ) -> None:
        """width, height: pixels of a 16:9 frame, multiples of the tower's patch size times its
        merge size. Films of another shape get as many tokens in their own shape, as the family's
        processor keeps it; with squeeze they get this size. UserError if they are no multiples.
        """
        super().__init__(path, **options)
        self.keeps_shape = not squeeze
        if hasattr(self.processor.video_processor, "cap_pixels_per_frame"):
            # frames have their size already; unset, transformers warns about it at every start
            self.processor.video_processor.cap_pixels_per_frame = False
        vision = self.config.vision_config
        self.temporal_patch = int(getattr(vision, "temporal_patch_size", 1))
        self.unit = self.token_side(self.config)
        if width < self.unit or height < self.unit or width % self.unit or height % self.unit:
            fit = ", ".join(
                str(max(1, round(side / self.unit)) * self.unit) for side in (width, height)
            )
            raise UserError(
                f"backbone.width={width} and backbone.height={height} must be multiples of "
                f"{self.unit} for this model; "
                f"nearest: {fit}."
            )
        self.width, self.height = width, height

    @property
    def frame_size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.width, self.height

    def frame_size_for(self, ratio: float) -> tuple[int, int]:
        """The film's shape as nearly as a grid with the tokens of `frame_size` can show it."""
        if not self.keeps_shape:
            return self.frame_size
        rows, columns = grid_for(ratio, self.tokens_per_frame)
        return columns * self.unit, rows * self.unit

    @classmethod
    def token_side(cls, config: Any) -> int:
        """Pixels per side of a visual token: a merged square of patches."""
        vision = config.vision_config
        return int(vision.patch_size * vision.spatial_merge_size)

    @classmethod
    def frame_grid(cls, config: Any, width: int = 0, height: int = 0) -> tuple[int, int]:
        """The grid of a temporal patch: one visual token per merged square of patches."""
        side = cls.token_side(config)
        return height // side, width // side

    def pixels(self, frames: np.ndarray) -> tuple[Tensor, Tensor]:
        """[n * temporal_patch, H, W, 3] uint8 -> the tower's patches, and their grid [1, 3]."""
        out = self._process(frames)
        return out["pixel_values_videos"].to(self.device, self.dtype), out["video_grid_thw"].to(
            self.device
        )

    @torch.inference_mode()
    def _encode(self, frames: Frames) -> VisualTokens:
        """Each temporal patch alone, in batches. This equals the whole clip at once, because the
        tower attends only within a patch. A last frame without a partner is used twice, as by the
        family's processor.

        ValueError if the sides of the frames are no multiples of `unit`.
        """
        height, width = frames.pixels.shape[1:3]
        if height % self.unit or width % self.unit:
            raise ValueError(f"frames of {height} x {width} pixels, the tower takes multiples")
        size = self.temporal_patch
        count = -(-len(frames) // size)
        pictures = np.concatenate(
            [frames.pixels, frames.pixels[-1:].repeat(count * size - len(frames), axis=0)]
        )
        features: list[Tensor] = []
        for a in range(0, count, self.batch):
            part = self._features(pictures[a * size : (a + self.batch) * size])
            features.append(part.cpu())
        rows, columns = self.frame_grid(self.config, width, height)
        grid_pos = torch.stack(
            torch.meshgrid(*(torch.arange(n) for n in (count, rows, columns)), indexing="ij"),
            dim=-1,
        )
        times = torch.from_numpy(np.ascontiguousarray(frames.times, dtype=np.float64))
        return VisualTokens(
            tokens=torch.cat(features),
            pos=grid_pos.reshape(-1, 3).to(torch.int32),
            offsets=torch.arange(count + 1) * (rows * columns),
            times=torch.stack([part[-1] for part in times.split(size)]),
            firsts=None if size == 1 else times[::size].clone(),
            # a film in the model's own shape needs none, so its bytes are those of earlier versions
            sides=None
            if (rows, columns) == self.grid()
            else torch.full((count,), max(rows, columns), dtype=torch.int32),
        )

    def _features(self, pictures: np.ndarray) -> Tensor:
        """[n * temporal_patch, H, W, 3] uint8 -> [n * rows * columns, D]."""
        out = self.model.get_video_features(*self.pixels(pictures))
        return torch.cat([torch.cat(list(out.pooler_output)), *self._levels(out)], dim=1)

    def _levels(self, out: Any) -> list[Tensor]:
        """Features of the tower's other levels, [N, D] each."""
        return []
