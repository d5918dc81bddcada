"""The common part of families that encode each sampled frame alone, at one size for all films.

Knows towers that give every frame the same grid of tokens. Knows no prompt and no positions.
"""

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from encoders.models.video_llm import VideoLLM
from encoders.schema import Frames, VisualTokens


class SingleFrameVLM(VideoLLM):
    """A family that mixes frames only in the decoder, so that batches of frames give the tokens of
    the whole clip. A subclass adds `_features`, and `pixels` if its processor is not to be asked.
    """

    pixels_key: ClassVar = "pixel_values_videos"  # of the processor's output

    def pixels(self, frames: np.ndarray) -> Tensor:
        """[T, H, W, 3] uint8 -> [T, 3, H, W] in the model's dtype, normalized by the checkpoint's
        own processor.
        """
        values: Tensor = self._process(frames)[self.pixels_key][0].to(self.device, self.dtype)
        return values

    @torch.inference_mode()
    def _encode(self, frames: Frames) -> VisualTokens:
        """Each frame alone, in batches. ValueError if the frames do not have `frame_size`."""
        if frames.pixels.shape[1:3] != self.frame_size[::-1]:
            raise ValueError(
                f"frames of {frames.pixels.shape[1:3]} pixels, the tower takes "
                f"{self.frame_size[::-1]}"
            )
        tokens = torch.cat(
            [
                self._features(self.pixels(frames.pixels[first : first + self.batch]))
                for first in range(0, len(frames), self.batch)
            ]
        )  # [T, rows * columns, D]
        rows, columns = self.grid()
        places = torch.stack(
            torch.meshgrid(*(torch.arange(n) for n in (len(tokens), rows, columns)), indexing="ij"),
            dim=-1,
        )
        return VisualTokens(
            tokens=tokens.flatten(0, 1).cpu(),
            pos=places.reshape(-1, 3).to(torch.int32),
            offsets=torch.arange(len(tokens) + 1) * tokens.shape[1],
            times=torch.from_numpy(np.ascontiguousarray(frames.times, dtype=np.float64)),
        )

    def _features(self, pixels: Tensor) -> Tensor:
        """[n, 3, H, W] -> [n, rows * columns, D]: the vision tower and the projector."""
        raise NotImplementedError
